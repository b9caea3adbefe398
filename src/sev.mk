# SPDX-License-Identifier: GPL-2.0
#
# SEV in Rust, as objects of kvm-amd. Included by Kbuild, and by arch/x86/kvm/Makefile of a kernel that
# it was dropped into: `kvm` is the latter's directory, `sev` is where this one is, seen from the
# Makefile: empty, or with a slash at its end.

kvm-amd-y += $(addprefix $(sev),main.o ffi/helpers.o ffi/vcpu.o ffi/snp.o ffi/events.o ffi/shims.o)

ffi := $(obj)/$(sev)ffi
ffi-src := $(src)/$(sev)ffi

# The second one: define_trace.h includes the events' header again.
ccflags-y += -I $(kvm)/svm -I $(ffi-src)

include $(ffi-src)/bindgen.mk

# Kernels are told apart by what svm.h declares, not by their version.
kvm-has = $(shell grep -qw $(1) $(kvm)/svm/svm.h && echo --cfg $(1))
RUSTFLAGS_$(sev)main.o := $(foreach f,sev_gmem_make_private sev_gmem_make_shared \
	sev_vcpu_needs_initialization,$(call kvm-has,$f))

$(obj)/$(sev)main.o: private export KVM_SEV_BINDINGS = $(abspath $(ffi))/bindings_generated.rs
$(obj)/$(sev)main.o: private export KVM_SEV_LAYOUT = $(abspath $(ffi))/layout_generated.rs
$(obj)/$(sev)main.o: $(ffi)/bindings_generated.rs $(ffi)/layout_generated.rs
