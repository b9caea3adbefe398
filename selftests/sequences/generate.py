# SPDX-License-Identifier: GPL-2.0-or-later
"""Random sequences of operations: mostly what a VMM does, with something wrong now and then.

The generator keeps a model of the VMs, only to choose what is likely to get further; it knows
no answers. The operations are those of selftests/src/bin/sev_sequences/world.rs.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = "abcdef"
LENGTH = (12, 32)
DEFAULT, SEV, SEV_ES, SNP = 0, 2, 3, 4

# What a sequence may contain beyond plain SEV guests.
FEATURES = ("es", "mirrors", "moves", "transfer", "attest")

# Firmware commands that a fault may hit, and statuses.
FAULTS = (
    *("LAUNCH_START", "ACTIVATE", "LAUNCH_UPDATE_DATA", "LAUNCH_MEASURE", "LAUNCH_FINISH"),
    *("GUEST_STATUS", "DBG_DECRYPT", "DBG_ENCRYPT", "DECOMMISSION", "LAUNCH_SECRET", "any"),
)
FEATURE_FAULTS = {
    "es": ("LAUNCH_UPDATE_VMSA",),
    "attest": ("ATTESTATION",),
    "transfer": ("SEND_START", "SEND_UPDATE_DATA", "SEND_FINISH", "RECEIVE_START",
                 "RECEIVE_UPDATE_DATA", "RECEIVE_FINISH", "SEND_CANCEL"),
}  # fmt: skip
STATUSES = (0x1, 0x2, 0x4, 0x7, 0xC, 0x10, 0x13, 0x17)
BAD = ("null", "hole", "hole+0xff8", "kernel", "noncanon", "top", "ro")
DESCRIPTORS = ("minus_1", "not_open", "dev_null", "dev_kvm", "int_min")
PACKET = "hdr_uaddr=hdr hdr_len=0x34 guest_uaddr={at} guest_len={n} trans_uaddr=trans trans_len={n}"
OWNERS = "dh_uaddr=cert dh_len=0x824 session_uaddr=cert+0x1000 session_len=0x80"


@dataclass
class Vm:
    kind: int
    memory: str
    init: bool = False
    # new, launching, measured, running, sending, receiving
    state: str = "new"
    cpus: int = 0
    owned: bool = False
    mirror: bool = False
    regions: tuple[str, ...] = ()


class Generator:
    def __init__(self, seed: int, features: tuple[str, ...] = FEATURES) -> None:
        self.random = random.Random(seed)
        self.features = features
        self.vms: dict[str, Vm] = {}
        self.lines: list[str] = []

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def pick(self, items):
        return self.random.choice(list(items))

    def say(self, line: str) -> None:
        self.lines.append(line)

    # --- values ---

    def length(self, usual: tuple[int, ...]) -> int:
        if self.chance(0.85):
            return self.pick(usual)
        rare = (0, 1, 15, 17, 0xFFF, 0x1001, 0x4000, 0x4001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
        return self.pick(rare)

    def buffer(self, usual: str) -> str:
        """A place of `usual`, or one where nothing can be read or written."""
        return usual if self.chance(0.92) else self.pick(BAD)

    def guest_place(self, vm: Vm, *, patch: bool = False) -> str:
        """`patch` is at other physical addresses each time: what it holds must not be seen."""
        if self.chance(0.08):
            place = self.pick((*BAD, "patch+0x4000", "patch+0x2ff8", "out+0x3ff0"))
            return place if patch or not place.startswith("patch") else "hole"
        offset = self.pick((0x30000, 0x31000, 0x32000, 0x33000, 0x40000, 0x41000))
        if self.chance(0.25):
            offset += self.pick((1, 8, 15, 16, 17, 0x10, 0x7F0, 0xFF0, 0xFFF))
        return f"{vm.memory}+{offset:#x}"

    def modifiers(self) -> str:
        """How a command is issued; mostly as usual."""
        text = ""
        if self.chance(0.02):
            text += f" fd={self.pick((*DESCRIPTORS, 'second'))}"
        if self.chance(0.02):
            text += f" by={self.pick(('thread', 'fork'))}"
        if self.chance(0.02):
            text += f" at={self.pick(BAD)}"
        return text

    def sev(self, name: str, command: str, fields: str = "") -> None:
        self.say(f"sev {name} {command} {fields}".rstrip() + self.modifiers())

    # --- the life of a VM ---

    def create(self) -> None:
        free = [name for name in NAMES if name not in self.vms]
        if not free:
            return
        name = self.pick(free)
        kinds = [SEV] * 6 + [DEFAULT] * 2 + ([SEV_ES] * 4 if "es" in self.features else [])
        kind = self.pick([*kinds, 1, 7]) if self.chance(0.05) else self.pick(kinds)
        memory = name
        if self.vms and self.chance(0.1):
            memory = self.pick(self.vms.values()).memory
        same = "" if memory == name else f" mem={memory}"
        self.say(f"vm {name} type={kind}{same}")
        self.vms[name] = Vm(kind, memory)

    def initialise(self, name: str, vm: Vm) -> None:
        right = "INIT" if vm.kind == DEFAULT else "INIT2"
        wrong = ("INIT", "INIT2", *(("ES_INIT",) if "es" in self.features else ()))
        command = right if self.chance(0.93) else self.pick(wrong)
        if vm.kind == DEFAULT and "es" in self.features and self.chance(0.3):
            command = "ES_INIT"
        fields = ""
        if command == "INIT2":
            if self.chance(0.04):
                fields += f"flags={self.pick((1, 0x80000000))} "
            if self.chance(0.3 if vm.kind == SEV_ES else 0.04):
                fields += f"vmsa_features={self.pick((1, 0x20, 0x20, 0x20, 1 << 63)):#x} "
            if self.chance(0.4 if vm.kind == SEV_ES else 0.04):
                fields += f"ghcb_version={self.pick((0, 1, 2, 2, 3, 0xFFFF))} "
        self.sev(name, command, fields.strip())
        vm.init = True

    def start(self, name: str, vm: Vm) -> None:
        es = vm.kind == SEV_ES or self.chance(0.03)
        policy = 0
        if self.chance(0.35):
            policy = self.pick((1, 2, 8, 0x10, 0x20, 0x10000, 0xFF0000, 0x3F))
        policy |= 4 if es else 0
        if self.chance(0.06):
            self.say(f"owner policy={policy:#x}")
            wrong = policy ^ 1 if self.chance(0.1) else policy
            self.sev(name, "LAUNCH_START", f"policy={wrong:#x} {OWNERS}")
            vm.owned = True
        else:
            fields = f"policy={policy:#x}"
            if self.chance(0.04):
                fields += f" handle=#{self.pick((0, 1, 9))}"
            if self.chance(0.04):
                fields += f" dh_uaddr={self.buffer('cert')} dh_len={self.length((0x824, 16)):#x}"
            if self.chance(0.04):
                place = self.buffer("cert+0x1000")
                fields += f" session_uaddr={place} session_len={self.length((0x80, 16)):#x}"
            self.sev(name, "LAUNCH_START", fields)
        vm.state = "launching"
        if self.chance(0.5):
            self.say(f"load {name}")
            self.sev(name, "LAUNCH_UPDATE_DATA", f"uaddr={vm.memory} len=0x20000")

    def update(self, name: str, vm: Vm) -> None:
        if self.chance(0.1):
            offset, length = self.pick(((0, 0x10000), (0x1000, 0x3000), (0xFF0, 0x20), (4, 8)))
            fields = f"uaddr=patch+{offset:#x} len={length:#x}"
        else:
            length = self.length((16, 0x1000, 0x2000, 0x3000, 0x10000))
            fields = f"uaddr={self.guest_place(vm, patch=True)} len={length:#x}"
        self.sev(name, "LAUNCH_UPDATE_DATA", fields)

    def measure(self, name: str, vm: Vm) -> None:
        if self.chance(0.25):
            self.sev(name, "LAUNCH_MEASURE", self.pick(("", "uaddr=out", "len=48")))
        if vm.kind == SEV_ES and self.chance(0.8):
            self.sev(name, "LAUNCH_UPDATE_VMSA")
        place = self.buffer("out") if self.chance(0.9) else "out+0x3fff"
        self.sev(name, "LAUNCH_MEASURE", f"uaddr={place} len={self.length((48, 48, 48, 64)):#x}")
        vm.state = "measured"

    def secret(self, name: str, vm: Vm) -> None:
        length = self.pick((16, 32, 64))
        if vm.owned:
            self.say(f"packet {name} len={length}")
        fields = PACKET.format(at=self.guest_place(vm, patch=True), n=hex(length))
        if self.chance(0.15):
            field = self.pick(("hdr_uaddr", "trans_uaddr", "guest_uaddr"))
            fields += f" {field}={self.pick(BAD)}"
        if self.chance(0.15):
            fields += f" {self.pick(('hdr_len', 'trans_len', 'guest_len'))}={self.length((1,)):#x}"
        self.sev(name, "LAUNCH_SECRET", dedupe(fields))

    def debug(self, name: str, vm: Vm) -> None:
        length = self.length((1, 7, 16, 16, 32, 33, 0x100, 0x1000, 0x1008, 0x2000))
        guest, offset = self.guest_place(vm), self.pick((0, 0, 0, 1, 8, 0xFF0, 0xFFF))
        if self.chance(0.5):
            place = self.buffer(f"out+{offset:#x}")
            self.sev(name, "DBG_DECRYPT", f"src_uaddr={guest} dst_uaddr={place} len={length:#x}")
        else:
            place = self.buffer(f"cert+{0x2000 + offset:#x}")
            self.sev(name, "DBG_ENCRYPT", f"src_uaddr={place} dst_uaddr={guest} len={length:#x}")

    def vcpu(self, name: str, vm: Vm) -> None:
        n = vm.cpus if self.chance(0.9) else self.pick((0, 1, 5, 4096))
        self.say(f"vcpu {name} n={n}")
        vm.cpus += 1

    def run(self, name: str, vm: Vm) -> None:
        if vm.cpus == 0:
            self.vcpu(name, vm)
        self.say(f"run {name} n={self.random.randrange(max(vm.cpus, 1))}")

    def region(self, name: str, vm: Vm) -> None:
        if vm.regions and self.chance(0.6):
            region = self.pick(vm.regions)
            what = "unreg"
        else:
            size = self.pick((0x1000, 0x2000, 0x10000, 0x60000, 0x1001, 1))
            if self.chance(0.1):
                size = self.pick((0, 1 << 40, (1 << 64) - 1, 1 << 63))
            region = f"addr={self.guest_place(vm, patch=True)} size={size:#x}"
            what = "reg"
            vm.regions += (region,)
        by = " by=fork" if self.chance(0.03) else " by=thread" if self.chance(0.03) else ""
        self.say(f"{what} {name} {region}{by}")

    # --- several VMs ---

    def source(self, name: str) -> str:
        others = [other for other in self.vms if other != name]
        if not others or self.chance(0.05):
            return self.pick((name, "f", "sev", *DESCRIPTORS))
        ready = [o for o in others if self.vms[o].init]
        return self.pick(ready or others)

    def mirror(self, name: str, vm: Vm) -> None:
        source = self.source(name)
        self.say(f"copy {name} from={source}")
        if source in self.vms:
            vm.init, vm.mirror, vm.state = True, True, "running"

    def move(self, name: str, vm: Vm) -> None:
        source = self.source(name)
        self.say(f"move {name} from={source}")
        if source in self.vms:
            old = self.vms[source]
            vm.init, vm.state, vm.mirror = old.init, old.state, old.mirror
            old.init, old.state = False, "new"

    # --- to other platforms ---

    def send(self, name: str, vm: Vm) -> None:
        if vm.state != "sending":
            session = self.pick(("session_uaddr=sess session_len=0x80", "session_len=0", ""))
            good = "cert plat_certs_len=0x186c"
            if self.chance(0.7):
                self.say("certificates")
                good = "cert+0x1000 plat_certs_len=0x186c"
            certs = self.pick(
                (
                    *(f"pdh_cert_uaddr=cert pdh_cert_len=0x824 plat_certs_uaddr={good} "
                      "amd_certs_uaddr=cert amd_certs_len=0xc80",) * 3,
                    "pdh_cert_uaddr=cert pdh_cert_len=0x824 plat_certs_uaddr=cert "
                    "plat_certs_len=16 amd_certs_uaddr=cert amd_certs_len=16",
                    f"pdh_cert_uaddr={self.pick(BAD)} pdh_cert_len=16",
                )
            )  # fmt: skip
            self.sev(name, "SEND_START", f"{certs} {session}".strip())
            vm.state = "sending"
        elif self.chance(0.6):
            fields = PACKET.format(at=self.guest_place(vm), n=hex(self.length((16, 0x1000))))
            if self.chance(0.2):
                fields = dedupe(fields + f" {self.pick(('hdr_len', 'trans_len'))}=0")
            self.sev(name, "SEND_UPDATE_DATA", fields)
        else:
            self.sev(name, self.pick(("SEND_FINISH", "SEND_CANCEL")))

    def receive(self, name: str, vm: Vm) -> None:
        if vm.state == "new":
            fields = f"policy={self.pick((0, 0, 4, 8)):#x} pdh_uaddr=cert pdh_len=0x824"
            fields = fields.replace("pdh_", "dh_")
            self.sev(name, "RECEIVE_START", f"{fields} session_uaddr=sess session_len=0x80")
            vm.state = "receiving"
        elif self.chance(0.7):
            fields = PACKET.format(at=self.guest_place(vm), n=hex(self.length((16, 0x1000))))
            self.sev(name, "RECEIVE_UPDATE_DATA", fields)
        else:
            self.sev(name, "RECEIVE_FINISH")

    def report(self, name: str, vm: Vm) -> None:
        place = self.buffer("out")
        fields = f"mnonce={self.pick((0, 7))} uaddr={place} len={self.length((0xD0, 0xD0, 0))}"
        self.sev(name, "REPORT", fields)

    # --- everything else ---

    def any_command(self, name: str, vm: Vm) -> None:
        """A command in whatever state."""
        choices: list[Callable[[str, Vm], None]] = [
            *(self.initialise, self.start, self.update, self.measure, self.secret, self.debug),
            *(self.finish, self.status),
        ]
        if "es" in self.features:
            choices.append(lambda name, _: self.sev(name, "LAUNCH_UPDATE_VMSA"))
        if "attest" in self.features:
            choices.append(self.report)
        if "transfer" in self.features:
            choices += [self.send, self.receive]
        self.pick(choices)(name, vm)

    def finish(self, name: str, vm: Vm) -> None:
        self.sev(name, "LAUNCH_FINISH")
        if vm.state == "measured":
            vm.state = "running"

    def status(self, name: str, vm: Vm) -> None:
        del vm
        self.sev(name, "GUEST_STATUS")

    def odd(self, name: str) -> None:
        """No command of a VMM's."""
        self.say(
            self.pick(
                (
                    f"raw {name} id={self.pick((10, 14, 19, 23, 25, 99, 104, 0xFFFFFFFF))}",
                    f"argp {name} at={self.pick(BAD)}",
                    f"attr group={self.pick((0, 1, 1, 1, 2))} attr={self.pick((0, 1, 2, 3, 77))}",
                    f"write {name}+0x30000 len=0x2000 byte={self.random.randrange(256)}",
                    f"load {name}",
                )
            )
        )

    def fault(self) -> None:
        commands = list(FAULTS)
        for feature in self.features:
            commands += FEATURE_FAULTS.get(feature, ())
        command = self.pick(commands) if self.chance(0.97) else "DEACTIVATE"
        self.say(f"fault cmd={command} n={self.pick((1, 1, 2))} status={self.pick(STATUSES):#x}")

    def close(self) -> None:
        name = self.pick(self.vms)
        vm = self.vms[name]
        if vm.cpus and self.chance(0.5):
            self.say(f"closevcpu {name} n={self.random.randrange(vm.cpus)}")
        self.say(f"close {name}")
        if not vm.cpus:
            # With vCPUs the VM lives on, under no name.
            del self.vms[name]

    def advance(self, name: str, vm: Vm) -> None:
        """What a VMM does next."""
        if not vm.init:
            if "mirrors" in self.features and len(self.vms) > 1 and self.chance(0.15):
                self.mirror(name, vm)
            elif "moves" in self.features and len(self.vms) > 1 and self.chance(0.15):
                self.move(name, vm)
            else:
                self.initialise(name, vm)
        elif vm.state == "new":
            if "transfer" in self.features and self.chance(0.1):
                self.receive(name, vm)
            else:
                self.start(name, vm)
        elif vm.state == "launching":
            if vm.kind == SEV_ES and vm.cpus == 0:
                self.vcpu(name, vm)
            else:
                self.pick((self.update, self.measure, self.measure, self.region))(name, vm)
        elif vm.state == "measured":
            self.pick((self.finish, self.finish, self.finish, self.secret))(name, vm)
        elif vm.state == "receiving":
            self.receive(name, vm)
        elif vm.state == "sending":
            self.send(name, vm)
        else:
            choices = [self.run, self.debug, self.debug, self.status, self.region, self.vcpu]
            if "transfer" in self.features and not vm.mirror:
                choices.append(self.send)
            if "attest" in self.features:
                choices.append(self.report)
            self.pick(choices)(name, vm)

    def step(self) -> None:
        if not self.vms or (len(self.vms) < 4 and self.chance(0.12)):
            self.create()
            return
        name = self.pick(self.vms)
        vm = self.vms[name]
        what = self.random.random()
        if what < 0.72:
            self.advance(name, vm)
        elif what < 0.87:
            self.any_command(name, vm)
        elif what < 0.91:
            self.odd(name)
        elif what < 0.94:
            self.fault()
        elif what < 0.97:
            self.close()
        elif what < 0.99:
            self.pick((self.vcpu, self.region))(name, vm)
        else:
            kind = "sev_es" if "es" in self.features and self.chance(0.4) else "sev"
            self.say(f"limit {kind}={self.pick((0, 1, 1, 2, 'max'))}")

    def sequence(self) -> list[str]:
        length = self.random.randint(*LENGTH)
        if self.chance(0.03):
            self.say("opensev")
        if self.chance(0.0015):
            self.say(f"exhaust type={self.pick((SEV, SEV_ES) if 'es' in self.features else (SEV,))}")
        while len(self.lines) < length:
            self.step()
        return self.lines


def dedupe(fields: str) -> str:
    """Of several values for a field the last one."""
    return " ".join(f"{k}={v}" for k, v in dict(f.split("=", 1) for f in fields.split()).items())


def sequence(seed: int, features: tuple[str, ...] = FEATURES) -> list[str]:
    return Generator(seed, features).sequence()
