# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated machine as QEMU arguments."""

from dataclasses import dataclass
from pathlib import Path

# x-sev-host
PLATFORMS = {"none": 0, "sev": 1, "es": 2, "snp": 3}

# Virtio-serial ports, see guest/init; `psp` relays to the firmware's control channel.
PORTS = ("control", "out", "err", "files", "psp")

CPU = "EPYC-Milan,-hypervisor,+svm,+npt,+nrip-save,+lbrv,+flushbyasid,+decodeassists,phys-bits=48"

# A machine that goes on after an Oops or a lockup tells nothing new: say what every CPU is doing,
# panic, and end; and so upon an NMI, see hang. A CPU may stand still for as long as one of this
# machine does, see vcpus. The emulated TSC keeps time, but comparing it with others goes wrong on a
# busy machine, and so does waiting for the first timer interrupts.
COMMAND_LINE = (
    "console=ttyS0 ignore_loglevel panic=-1 oops=panic softlockup_panic=1 hung_task_panic=1 "
    "sysctl.kernel.hung_task_all_cpu_backtrace=1 sysctl.kernel.softlockup_all_cpu_backtrace=1 "
    "sysctl.kernel.watchdog_thresh=60 sysctl.kernel.hung_task_timeout_secs=240 "
    "rcupdate.rcu_cpu_stall_timeout=120 workqueue.watchdog_thresh=120 "
    "unknown_nmi_panic panic_sys_info=blocked_tasks,all_bt "
    "tsc=reliable no_timer_check"
)
BIOS_DIRECTORIES = ("/usr/share/seabios", "/usr/share/qemu")


@dataclass(frozen=True)
class Machine:
    qemu: Path
    firmware: Path
    kernel: Path  # vmlinuz
    initramfs: Path
    platform: str = "sev"
    smp: int = 2
    memory: str = "2G"
    icount: bool = False
    asids: int | None = None  # CPUID Fn8000_001F ECX; None: QEMU's default
    min_sev_asid: int | None = None  # EDX
    cpu_properties: tuple[str, ...] = ()  # name=value, see ../qemu/README.md
    firmware_config: str = ""
    append: str = ""

    def arguments(self, fds: dict[str, int]) -> list[str]:
        """The command line; `fds` are the far ends of PORTS and `qmp`, and the file `console`."""
        arguments = [str(self.qemu), "-nodefaults", "-no-reboot", "-display", "none"]
        arguments += ["-name", "host,debug-threads=on"]
        for directory in BIOS_DIRECTORIES:
            arguments += ["-L", directory]
        arguments += ["-machine", "q35,kernel-irqchip=off"]
        if self.icount:
            arguments += ["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"]
        else:
            arguments += ["-accel", "tcg,thread=multi"]
        arguments += ["-cpu", self.cpu()]
        arguments += ["-smp", str(self.smp), "-m", self.memory]
        arguments += ["-kernel", str(self.kernel), "-initrd", str(self.initramfs)]
        arguments += ["-append", f"{COMMAND_LINE} {self.append}".strip()]
        arguments += ["-device", "amd-iommu,x-snp=on" if self.platform == "snp" else "amd-iommu"]
        if self.platform != "none":
            arguments += ["-device", self.psp()]
        arguments += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        for name in PORTS:
            arguments += ["-chardev", f"socket,id={name},fd={fds[name]}"]
            arguments += ["-device", f"virtserialport,chardev={name},name={name}"]
        # A socket would be full now and then, and the kernel does not wait long before it goes on
        # with the next character.
        arguments += ["-chardev", f"file,id=console,path=/dev/fd/{fds['console']}"]
        arguments += ["-serial", "chardev:console"]
        arguments += ["-chardev", f"socket,id=qmp,fd={fds['qmp']}"]
        arguments += ["-mon", "chardev=qmp,mode=control"]
        return arguments

    def cpu(self) -> str:
        cpu = f"{CPU},x-sev-host={PLATFORMS[self.platform]}"
        if self.asids is not None:
            cpu += f",x-sev-asids={self.asids}"
        if self.min_sev_asid is not None:
            cpu += f",x-sev-min-asid={self.min_sev_asid}"
        return ",".join((cpu, *self.cpu_properties))

    def psp(self) -> str:
        device = f"amd-psp,id=psp,firmware={self.firmware}"
        config = [self.firmware_config] if self.firmware_config else []
        # The firmware knows the same ASIDs.
        if self.asids is not None:
            config.append(f"asids={self.asids}")
        if self.min_sev_asid is not None:
            config.append(f"min-asid={self.min_sev_asid}")
        if config:
            # A comma separates properties unless it is doubled.
            device += ",config=" + ",".join(config).replace(",", ",,")
        return device
