# SPDX-License-Identifier: GPL-2.0-or-later
"""Random sequences about SEV-SNP VMs, in the manner of `generate`."""

from .generate import BAD, LENGTH, SEV, SEV_ES, SNP, STATUSES, Generator, Vm

NORMAL, ZERO, UNMEASURED, SECRETS, CPUID = 1, 3, 4, 5, 6
# Firmware commands that a fault may hit: not those with which KVM clears up, which cost the stock
# module a page that it goes on using, or an ASID.
FAULTS = (
    *("SNP_GCTX_CREATE", "SNP_LAUNCH_START", "SNP_ACTIVATE", "SNP_LAUNCH_UPDATE"),
    "SNP_LAUNCH_FINISH",
)
# Allowed for guests: SMT, the bit that has to be 1, migration agents, debugging, one socket.
POLICY = 0x30000
PAGE = 0x1000
# Of a VM's memory; what it runs is before the first, what it writes at the first.
SHARED, PRIVATE, END = 0x20000, 0x30000, 0x200000


class SnpGenerator(Generator):
    def create(self) -> None:
        free = [name for name in "abcdef" if name not in self.vms]
        if not free:
            return
        name = self.pick(free)
        kind = self.pick((SEV, SEV_ES)) if self.chance(0.06) else SNP
        self.say(f"vm {name} type={kind}")
        self.vms[name] = Vm(kind, name)

    def initialise(self, name: str, vm: Vm) -> None:
        del vm
        fields = ""
        if self.chance(0.04):
            fields += f"flags={self.pick((1, 0x80000000))} "
        if self.chance(0.2):
            fields += f"vmsa_features={self.pick((1, 0x20, 0x20, 0x200, 1 << 63)):#x} "
        if self.chance(0.3):
            fields += f"ghcb_version={self.pick((0, 1, 2, 2, 3, 0xFFFF))} "
        race = " by=race" if self.chance(0.05) else ""
        self.sev(name, "INIT2", fields.strip() + race)
        self.vms[name].init = True

    def start(self, name: str, vm: Vm) -> None:
        policy = POLICY
        if self.chance(0.3):
            policy = self.pick((0, 0x10000, 0x20000, 0xB0000, 0x130000, 0x30000 | 1 << 40, 0x3FFFF))
        fields = f"policy={policy:#x}"
        if self.chance(0.04):
            fields += " flags=1"
        if self.chance(0.05):
            fields += " gosvw=0x0101010101010101"
        if self.chance(0.07):
            fields += " by=race"
        self.sev(name, "SNP_LAUNCH_START", fields)
        vm.state = "launching"
        if self.chance(0.7):
            self.say(f"private {name} at=0 len={SHARED:#x} to=1")
            self.say(f"private {name} at={PRIVATE:#x} len={END - PRIVATE:#x} to=1")
        if self.chance(0.5):
            self.say(f"load {name}")
            fields = f"gfn_start=0 uaddr={name} len={SHARED:#x} type_={NORMAL}"
            self.sev(name, "SNP_LAUNCH_UPDATE", fields)
            fields = f"gfn_start={PRIVATE // PAGE:#x} len=0x40000 type_={ZERO}"
            self.sev(name, "SNP_LAUNCH_UPDATE", fields)

    def at(self) -> int:
        """An address in a VM's memory, mostly private."""
        if self.chance(0.9):
            return PRIVATE + PAGE * self.random.randrange(0x48)
        return self.pick((0, SHARED - PAGE, SHARED, PRIVATE - PAGE, END - PAGE, END, 1 << 40))

    def size(self) -> int:
        if self.chance(0.9):
            return PAGE * self.pick((1, 1, 1, 2, 3, 16))
        # KVM allocates something for every page of attributes: no larger ones.
        return self.pick((0, 1, 0xFFF, 0x1001, END, 2 * END))

    def update(self, name: str, vm: Vm) -> None:
        kind = self.pick((NORMAL, NORMAL, ZERO, UNMEASURED, SECRETS, CPUID))
        if self.chance(0.05):
            kind = self.pick((0, 2, 7, 255))
        length = self.size()
        if kind == CPUID and length != 0 and self.chance(0.9):
            length = PAGE
        at, place = self.at(), f"{vm.memory}+{self.at() % END:#x}"
        if self.chance(0.1):
            place = self.pick((*(bad for bad in BAD if bad != "hole+0xff8"), "patch", f"{name}+8"))
        fields = f"gfn_start={at // PAGE:#x} uaddr={place} len={length:#x} type_={kind}"
        if self.chance(0.03):
            fields += " flags=1"
        if length == PAGE and self.chance(0.1):
            fields += " by=race"
        self.sev(name, "SNP_LAUNCH_UPDATE", fields)

    def measure(self, name: str, vm: Vm) -> None:
        self.finish(name, vm)

    def finish(self, name: str, vm: Vm) -> None:
        fields = ""
        if self.chance(0.15):
            self.say(f"identity policy={self.pick((POLICY, POLICY, 0x20000)):#x}")
            place = self.buffer("cert")
            fields = f"id_block_en=1 id_block_uaddr={place} id_auth_uaddr=cert+0x1000"
            fields += self.pick(("", " auth_key_en=1"))
        if self.chance(0.05):
            fields += " " + self.pick(("flags=1", "vcek_disabled=1", "host_data=0x55"))
        if vm.cpus == 0 and self.chance(0.05):
            fields += " by=race"
        self.sev(name, "SNP_LAUNCH_FINISH", fields.strip())
        vm.state = "running"

    def memory(self, name: str, vm: Vm) -> None:
        at, size = self.at(), self.size()
        by = " by=thread" if self.chance(0.03) else ""
        what = self.random.random()
        if what < 0.35:
            self.say(f"private {name} at={at:#x} len={size:#x} to={self.pick((0, 1, 1))}{by}")
        elif what < 0.6:
            # The file ends where the memory does.
            self.say(f"punch {name} at={at % END:#x} len={max(size % END, PAGE):#x}{by}")
        else:
            if vm.cpus == 0:
                self.vcpu(name, vm)
            self.say(f"prefault {name} n=0 at={at:#x} len={size:#x}")

    def other(self, name: str, vm: Vm) -> None:
        """What is not for SEV-SNP VMs."""
        commands = ("INIT", "LAUNCH_START", "LAUNCH_UPDATE_DATA", "LAUNCH_UPDATE_VMSA",
                    "LAUNCH_MEASURE", "LAUNCH_FINISH", "GUEST_STATUS", "DBG_DECRYPT", "SEND_START",
                    "RECEIVE_START", "REPORT")  # fmt: skip
        what = self.random.random()
        if what < 0.5:
            self.sev(name, self.pick(commands), "uaddr=out len=48" if self.chance(0.3) else "")
        elif what < 0.8:
            self.say(f"{self.pick(('copy', 'move'))} {name} from={self.source(name)}")
        else:
            self.region(name, vm)

    def certificates(self, name: str, vm: Vm) -> None:
        del vm
        self.sev(name, "SNP_REQ_CERTS")

    def any_command(self, name: str, vm: Vm) -> None:
        choices = (self.initialise, self.start, self.update, self.finish, self.other, self.memory,
                   self.certificates)  # fmt: skip
        self.pick(choices)(name, vm)

    def fault(self) -> None:
        status = self.pick(STATUSES)
        self.say(f"fault cmd={self.pick(FAULTS)} n={self.pick((1, 1, 2))} status={status:#x}")

    def advance(self, name: str, vm: Vm) -> None:
        if not vm.init:
            self.initialise(name, vm)
        elif vm.kind != SNP:
            self.other(name, vm)
        elif vm.state == "new":
            (self.start if self.chance(0.85) else self.certificates)(name, vm)
        elif vm.state == "launching":
            choices = (self.update, self.update, self.memory, self.vcpu, self.finish)
            self.pick(choices)(name, vm)
        else:
            self.pick((self.run, self.run, self.memory, self.memory, self.update))(name, vm)

    def step(self) -> None:
        if not self.vms or (len(self.vms) < 3 and self.chance(0.1)):
            self.create()
            return
        name = self.pick(self.vms)
        vm = self.vms[name]
        what = self.random.random()
        if what < 0.75:
            self.advance(name, vm)
        elif what < 0.9:
            self.any_command(name, vm)
        elif what < 0.93:
            self.odd(name)
        elif what < 0.96:
            self.fault()
        elif what < 0.99:
            self.close()
        else:
            self.say(f"limit sev_es={self.pick((0, 1, 1, 2, 'max'))}")

    def sequence(self) -> list[str]:
        length = self.random.randint(*LENGTH)
        while len(self.lines) < length:
            self.step()
        return self.lines


def snp_sequence(seed: int) -> list[str]:
    return SnpGenerator(seed).sequence()
