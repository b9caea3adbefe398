# SPDX-License-Identifier: GPL-2.0-or-later
#
# make help

# A kernel tree that Rust modules can be built against: KOUT is its build directory
# (modules_prepare done), KSRC its source. Without them, Debian's kernel of the release
# or series KERNEL is set up in the cache.
KOUT ?=
KSRC ?= $(if $(KOUT),$(KOUT)/source)
KERNEL ?= $(shell uname -r)

enter := tools/env/enter
module := build/kvm-amd.ko

.PHONY: all module load unload run check check-long check-debug compare bench intree stats clean clean-cache help
all: module

ifneq ($(KOUT),)
module:
	@variables=$$(tools/env/toolchain $(KOUT)) && mkdir -p build && \
	$(MAKE) -C $(KSRC) O=$(abspath $(KOUT)) M=$(CURDIR)/src MO=$(CURDIR)/build/objects $$variables modules
	@cp build/objects/kvm-amd.ko $(module)
	@echo "built $(module)"
else
module:
	@$(enter) tools/env/module $(KERNEL) --copy $(module)
endif

load:
	@tools/env/swap load $(module)

unload:
	@tools/env/swap unload

run check check-long check-debug bench:
	@$(enter) tools/env/drive $@

# N: number of sequences, SEED: of the first one.
compare:
	@$(enter) selftests/sequences/run $(if $(N),--number $(N)) $(if $(SEED),--seed $(SEED))

ifneq ($(KSRC),)
intree:
	@tools/env/intree $(KSRC)
else
intree:
	@echo "make intree KSRC=DIR: which kernel source tree?" >&2; exit 2
endif

stats:
	@tools/env/stats

clean:
	rm -rf build

clean-cache:
	@tools/env/clean-cache

help:
	@echo "make              build kvm-amd.ko for the running Debian kernel, in $(module)"
	@echo "                  KERNEL=7.2        for that series or release of Debian's kernels"
	@echo "                  KOUT=DIR [KSRC=DIR]  for a kernel build tree, with this machine's compilers"
	@echo "make load         exchange the running kernel's kvm_amd for it (as root)"
	@echo "make unload       go back to the kernel's own"
	@echo "make run          set everything up and show it at work on an emulated SEV host"
	@echo "make check        set everything up and run every test"
	@echo "make compare      random sequences of ioctls on the stock module and on ours, answers compared"
	@echo "                  N=20000 SEED=7    so many, from that seed on"
	@echo "make check-long   run what takes long and says little new: the stock module, ten times; the tests of"
	@echo "                  the module on a kernel that has it in its source, which is built first"
	@echo "make check-debug  run those of the module on a debug kernel, which is built first"
	@echo "make bench        count the instructions of each operation, in C and in Rust"
	@echo "make intree KSRC=DIR  put SEV in Rust into a kernel source tree, as an option of KVM"
	@echo "make stats        count the module's code, and what of it is unsafe"
	@echo "make clean        remove build/"
	@echo "make clean-cache  remove build root, kernels, QEMU and other caches"
	@echo
	@echo "SEV_CACHE=DIR     where the caches are (default: \$$XDG_CACHE_HOME/kvm-amd-sev)"
	@echo "DEBIAN_MIRROR=URL where Debian packages come from"
