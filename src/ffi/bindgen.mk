# SPDX-License-Identifier: GPL-2.0
#
# Generates the bindings to KVM's internals.
#
# bindgen runs twice: once over everything that is wanted, to learn which types the kernel crate's
# own bindings define too, and once more without those, so that there is only one type for each C
# type. The kernel's rust/Makefile cannot be used from outside rust/; its lists of flags can.
#
# `ffi` is this directory in the build tree, `ffi-src` in the source, `sev` that of sev.mk.

ifdef CONFIG_CC_IS_CLANG
kvm_sev_bindgen_cflags = $(filter-out $(CC_FLAGS_LTO),$(c_flags)) -fno-builtin -D__BINDGEN__
else
# Options of gcc that clang does not know.
kvm_sev_bindgen_skip := $(shell sed -n '/^bindgen_skip_c_flags := /,/[^\\]$$/p' \
	$(srctree)/rust/Makefile | sed -e 's/^bindgen_skip_c_flags := //' -e 's/\\$$//')
kvm_sev_bindgen_cflags = $(filter-out $(kvm_sev_bindgen_skip),$(c_flags)) \
	-w --target=x86_64-linux-gnu -fno-builtin -D__BINDGEN__
endif
kvm_sev_bindgen_params := $(shell grep -Ev '^\#|^$$' $(srctree)/rust/bindgen_parameters)

kvm_sev_space := $(subst ,, )
kvm_sev_any_of = ($(subst $(kvm_sev_space),|,$(strip $(1))))

# Types, functions that Rust calls or provides, constants.
kvm_sev_types := snp_guest_msg_hdr msg_type sev_cmd sev_ret_code pg_level sev_cmd_id ghcb kvm_reg kvm_svm vcpu_svm svm_cpu_data vmcb.* sev_data_.* sev_user_data_snp_status \
	sev_platform_init_args kvm_sev_.* kvm_gfn_range kvm_enc_region misc_res_type cc_attr
kvm_sev_functions := sev_.* snp_.* pre_sev_run kvm_sev_.* \
	cc_platform_has capable file_is_kvm kvm_lock_all_vcpus kvm_set_or_clear_apicv_inhibit \
	kvm_unlock_all_vcpus \
	misc_cg_set_capacity misc_cg_try_charge misc_cg_uncharge \
	pin_user_pages_fast unpin_user_pages_dirty_lock wbinvd_on_all_cpus wbnoinvd_on_cpus_mask \
	__kvm_vcpu_map kvm_vcpu_unmap kvm_read_guest kvm_emulate_ap_reset_hold \
	kvm_write_guest kvm_clear_guest kvm_gmem_populate kvm_gmem_get_pfn gfn_to_memslot kvm_zap_gfn_range psmash rmp_make_.* \
	svm_invoke_exit_handler svm_enable_lbrv svm_set_intercept_for_msr \
	__kvm_set_xcr __kvm_emulate_msr_write kvm_get_user_return_msr \
	amd_get_dr_addr_mask clflush_cache_range free_pages
kvm_sev_vars := KVM_X86_.* KVM_SEV_.* SEV_.* TLB_CONTROL_.* VMCB_.* X86_FEATURE_.* \
	CAP_IPC_LOCK RLIMIT_MEMLOCK FOLL_.* kvm_caps enable_mmio_caching lbrv npt_enabled nrips param_ops_uint \
	GHCB_.* SNP_PAGE_TYPE_.* SNP_GUEST_VMM_ERR_.* SVM_EXIT_.* SVM_VMGEXIT_.* SVM_IOIO_.* INTERCEPT_.* TRAP_.* DR7_FIXED_1 \
	MSR_EFER MSR_IA32_CR_PAT MSR_IA32_XSS MSR_TSC_AUX MSR_AMD64_SEV_ES_GHCB \
	MSR_AMD64_GUEST_TSC_FREQ kvm_host tsc_aux_uret_slot tsc_khz dump_invalid_vmcb \
	__tracepoint_kvm_vmgexit.* __tracepoint_psp_command __tracepoint_rmp __tracepoint_asid \
	__tracepoint_context
# Inline functions, for which bindgen makes callable ones.
kvm_sev_inlines := clr_exception_intercept cpuid get_current_misc_cg put_misc_cg \
	kvm_find_cpuid_entry kvm_get_vcpu kvm_is_vcpu_creation_in_progress \
	kvm_get_vcpu_by_id kvm_mem_is_private kvm_release_page_unused kvm_slot_has_gmem kvm_vm_dead rlimit \
	svm_clr_intercept svm_set_intercept totalram_pages

kvm_sev_allow := --allowlist-type '$(call kvm_sev_any_of,$(kvm_sev_types))' \
	--allowlist-function '$(call kvm_sev_any_of,$(kvm_sev_functions))' \
	--allowlist-var '$(call kvm_sev_any_of,$(kvm_sev_vars))'

quiet_cmd_kvm_sev_bindgen = BINDGEN $@
      cmd_kvm_sev_bindgen = \
	$(BINDGEN) $< $(kvm_sev_bindgen_params) $(kvm_sev_allow) $(kvm_sev_pass) \
		--rust-target 1.85 --use-core --with-derive-default --ctypes-prefix ffi \
		--no-layout-tests --no-debug '.*' --enable-function-attribute-detection \
		--default-non-copy-union-style manually_drop \
		-o $@ -- $(kvm_sev_bindgen_cflags) -DMODULE

kvm_sev_headers := $(ffi-src)/bindings_helper.h $(ffi-src)/helpers.h \
	$(srctree)/rust/bindgen_parameters

$(ffi)/bindings_all.rs: private kvm_sev_pass :=
$(ffi)/bindings_all.rs: $(kvm_sev_headers) FORCE
	$(call if_changed_dep,kvm_sev_bindgen)

quiet_cmd_kvm_sev_shared = SHARED  $@
      cmd_kvm_sev_shared = $(AWK) -f $(ffi-src)/shared.awk \
		$(objtree)/rust/bindings/bindings_generated.rs $< | LC_ALL=C sort >$@
$(ffi)/shared_types.args: $(ffi)/bindings_all.rs $(ffi-src)/shared.awk FORCE
	$(call if_changed,kvm_sev_shared)

$(ffi)/bindings_generated.rs: private kvm_sev_pass = $$(cat $(ffi)/shared_types.args) \
	--experimental --wrap-static-fns --wrap-static-fns-suffix _kvm_sev \
	--wrap-static-fns-path $(abspath $(ffi))/shims \
	--blocklist-function '(sev_es_ist_.*|sev_es_nmi_.*|sev_evict_cache)' \
	--allowlist-function '$(call kvm_sev_any_of,$(kvm_sev_inlines))'
$(ffi)/bindings_generated.rs: $(kvm_sev_headers) $(ffi)/shared_types.args FORCE
	$(call if_changed_dep,kvm_sev_bindgen)

$(ffi)/shims.c: $(ffi)/bindings_generated.rs ;
CFLAGS_$(sev)ffi/shims.o := -Wno-missing-prototypes -Wno-missing-declarations

# Layouts as the kernel's compiler sees them.
$(ffi)/layout.s: $(ffi-src)/layout.c FORCE
	$(call if_changed_dep,cc_s_c)

quiet_cmd_kvm_sev_layout = LAYOUT  $@
      cmd_kvm_sev_layout = \
	sed -ne 's/^.*"->\([A-Z_]*\) \$$*\([0-9]*\) .*/const \1: usize = \2;/p' $< >$@
$(ffi)/layout_generated.rs: $(ffi)/layout.s FORCE
	$(call if_changed,kvm_sev_layout)

kvm_sev_generated := $(addprefix $(sev)ffi/,bindings_all.rs shared_types.args bindings_generated.rs \
	shims.c layout.s layout_generated.rs)
targets += $(kvm_sev_generated)
clean-files += $(kvm_sev_generated)
