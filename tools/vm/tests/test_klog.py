# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages as kernels print them, from public bug reports, the kernel's own format strings, and
the debug kernel after tests/provoke."""

import unittest

from vm import klog

BAD = """\
[   12.345678] WARNING: CPU: 1 PID: 77 at kvm/svm/sev.c:123 sev_vm_destroy+0x1/0x2 [kvm_amd]
[   12.345678] WARNING: arch/x86/kvm/mmu/mmu.c:480 at kvm_free_mm+0x10/0x20, CPU#1: test/77
[    1.000000] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    1.000000] BUG: KASAN: slab-use-after-free in foo+0x1/0x2
[   26.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [test:77]
[    1.000000] kernel BUG at mm/slub.c:550!
[    1.000000] Oops: general protection fault, probably for non-canonical address: 0000 [#1] SMP
[  242.000000] INFO: task test:77 blocked for more than 120 seconds.
[   60.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
[   60.000000] rcu: INFO: rcu_preempt self-detected stall on CPU
[    1.000000] unchecked MSR access error: WRMSR to 0xc0010117 (tried to write 0x1) at rIP: 0xf (x)
[    1.000000] Kernel panic - not syncing: Fatal exception
[    1.000000] UBSAN: shift-out-of-bounds in foo.c:1:2
[    1.000000] INFO: trying to register non-static key.
[    1.000000] WARNING: possible circular locking dependency detected
[    1.000000] WARNING: suspicious RCU usage
[   28.819626] BUG: KASAN: slab-use-after-free in init_module+0x552/0x1000 [provoke]
[   28.833510] BUG: KASAN: vmalloc-out-of-bounds in init_module+0x56d/0x1000 [provoke]
[   28.854070] UBSAN: shift-out-of-bounds in /src/tools/vm/tests/provoke/provoke.c:74:2
[   28.867822] WARNING: lib/list_debug.c:37 at __list_add_valid_or_report+0x10a/0x130, CPU#0: insmod/72
[   28.881826] BUG: sleeping function called from invalid context at provoke.c:81
[   28.883847] BUG: using smp_processor_id() in preemptible [00000000] code: insmod/72
[  757.900000] kmemleak: unreferenced object 0xffff88800bfdef00 (size 64):
[  757.918903] kmemleak: 5 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
[    2.000000] kmemleak: Kernel memory leak detector disabled
[    1.000000]     not ok 1 a_test_of_kunit
[    1.000000] rust_kernel: panicked at src/main.rs:1:2:
[    1.000000][   T77] WARNING: CPU: 0 PID: 77 at kernel/foo.c:1 bar+0x1/0x2
""".splitlines()

GOOD = """\
[   24.365182] kmemleak: Kernel memory leak detector initialized (mem pool available: 14667)
[   24.381526] KTAP version 1
[    0.000000] Linux version 7.2.12+deb13-amd64
[    0.100000] rcu: 	RCU calculated value of scheduler-enlistment delay is 25 jiffies.
[    0.100000] rcu: INFO: nothing of note
[    0.200000] clocksource: timekeeping watchdog on CPU1: Marking clocksource 'tsc' as unstable
[    0.300000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
[    1.000000] ccp 0000:00:03.0: SEV API:1.55 build:8
[    1.000000] kvm_amd: SEV enabled (ASIDs 100 - 509)
[    1.000000] kvm_amd: loading out-of-tree module taints kernel.
[    1.000000] systemd[1]: Oops, not from the kernel is not at the start
[    1.000000] x86/mm: no WARNING: in the middle of a message
""".splitlines()


class Complaints(unittest.TestCase):
    def test_each_bad_line_is_found(self):
        for line in BAD:
            with self.subTest(line):
                self.assertEqual(klog.complaints(line), [line.strip()])

    def test_ordinary_lines_are_not(self):
        for line in GOOD:
            with self.subTest(line):
                self.assertEqual(klog.complaints(line), [])

    def test_what_was_lost_before_modules_were_loaded_does_not_count(self):
        lost = [line for line in BAD if "kmemleak: " in line]
        others = [line for line in BAD if line not in lost]
        marker = f"[   10.000000] {klog.SEARCHED}"
        disabled = [line.strip() for line in lost if "disabled" in line]
        self.assertEqual(klog.complaints("\n".join([*lost, marker])), disabled)
        self.assertEqual(klog.complaints("\n".join([marker, *lost])), [s.strip() for s in lost])
        log = "\n".join([*others, marker])
        self.assertEqual(klog.complaints(log), [line.strip() for line in others])

    def test_excerpt_surrounds_the_first_complaint(self):
        log = "\n".join([*(f"[    0.000000] line {n}" for n in range(100)), BAD[0], "Call Trace:"])
        excerpt = klog.excerpt(log, before=2, after=10)
        self.assertEqual(
            excerpt.splitlines(),
            ["[    0.000000] line 98", "[    0.000000] line 99", BAD[0], "Call Trace:"],
        )

    def test_excerpt_of_a_good_log_is_its_end(self):
        log = "\n".join(str(n) for n in range(100))
        self.assertEqual(klog.excerpt(log, before=1, after=2), "97\n98\n99")


if __name__ == "__main__":
    unittest.main()
