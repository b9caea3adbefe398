/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * How userspace recognises this implementation of KVM's SEV host side.
 *
 * Device attributes of /dev/kvm (KVM_GET_DEVICE_ATTR, KVM_HAS_DEVICE_ATTR) in the group
 * KVM_X86_GRP_SEV. Upstream numbers its attributes from 0; these start at a number that it will
 * not reach. Other implementations answer ENXIO.
 */
#ifndef _UAPI_KVM_SEV_IMPL_H
#define _UAPI_KVM_SEV_IMPL_H

/* KVM_SEV_IMPL_ID if the SEV half of kvm-amd is this implementation. */
#define KVM_X86_SEV_IMPL		0x52550000
/* Version of this interface: it only ever grows, and so does the number. */
#define KVM_X86_SEV_IMPL_VERSION	0x52550001
/* What is served beyond the standard interface: KVM_SEV_IMPL_F_* bits. */
#define KVM_X86_SEV_IMPL_FEATURES	0x52550002

/* The letters "SEV-Rust", first one lowest. */
#define KVM_SEV_IMPL_ID			0x747375522d564553

#define KVM_SEV_IMPL_VERSION		2

/* Commands use the /dev/sev file of the launch, whatever became of its descriptor. */
#define KVM_SEV_IMPL_F_DEVICE_FILE	(1 << 0)
/* There are events in events/kvm_sev/ of tracefs; see Documentation/tracing.rst. */
#define KVM_SEV_IMPL_F_EVENTS		(1 << 1)

#endif /* _UAPI_KVM_SEV_IMPL_H */
