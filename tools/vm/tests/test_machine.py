# SPDX-License-Identifier: GPL-2.0-or-later
import unittest
from pathlib import Path

from vm.machine import PLATFORMS, PORTS, Machine

FDS = {name: number for number, name in enumerate((*PORTS, "console", "qmp"), start=10)}


def arguments(**kwargs):
    paths = {name: Path(f"/{name}") for name in ("qemu", "firmware", "kernel", "initramfs")}
    return Machine(**(paths | kwargs)).arguments(FDS)


class Arguments(unittest.TestCase):
    def test_each_platform_has_its_level(self):
        for platform, level in PLATFORMS.items():
            cpu = next(a for a in arguments(platform=platform) if a.startswith("EPYC"))
            self.assertTrue(cpu.endswith(f",x-sev-host={level}"), cpu)

    def test_cpu_and_firmware_agree_about_asids(self):
        line = arguments(asids=15, min_sev_asid=16, firmware_config="snp=0")
        cpu = next(a for a in line if a.startswith("EPYC"))
        self.assertTrue(cpu.endswith(",x-sev-asids=15,x-sev-min-asid=16"), cpu)
        psp = next(a for a in line if a.startswith("amd-psp"))
        self.assertTrue(psp.endswith(",config=snp=0,,asids=15,,min-asid=16"), psp)

    def test_other_properties_of_the_cpu_come_last(self):
        line = arguments(asids=15, cpu_properties=("x-sev-rmp-shift=30", "x-sev-rmpread=on"))
        cpu = next(a for a in line if a.startswith("EPYC"))
        self.assertTrue(cpu.endswith("asids=15,x-sev-rmp-shift=30,x-sev-rmpread=on"), cpu)

    def test_only_sev_hosts_have_a_psp(self):
        self.assertFalse(any("amd-psp" in a for a in arguments(platform="none")))
        self.assertIn("amd-psp,id=psp,firmware=/firmware", arguments(platform="sev"))

    def test_only_snp_hosts_have_an_snp_iommu(self):
        self.assertIn("amd-iommu,x-snp=on", arguments(platform="snp"))
        self.assertIn("amd-iommu", arguments(platform="es"))

    def test_commas_of_the_firmware_configuration_are_doubled(self):
        self.assertIn(
            "amd-psp,id=psp,firmware=/firmware,config=slots=9,,seed=00",
            arguments(firmware_config="slots=9,seed=00"),
        )

    def test_every_channel_has_its_descriptor(self):
        line = " ".join(arguments())
        for name, fd in FDS.items():
            if name == "console":
                self.assertIn(f"file,id=console,path=/dev/fd/{fd}", line)
            else:
                self.assertIn(f"socket,id={name},fd={fd}", line)


if __name__ == "__main__":
    unittest.main()
