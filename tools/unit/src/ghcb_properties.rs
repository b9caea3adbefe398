// SPDX-License-Identifier: GPL-2.0-or-later
//! What guests say through the GHCB and the GHCB MSR: read as the GHCB specification says, and
//! harmless whatever it is. Expected numbers are those of the specification.

use proptest::prelude::*;

use crate::ghcb::msr::{self, CpuidRegister, Request, SnpRequest};
use crate::ghcb::psc::PageState;
use crate::ghcb::scratch::{chunks, place, Place, Unusable};
use crate::ghcb::snapshot::{ApAction, Certificates, Exit, Field, Refusal, Snapshot, SnpExit};
use crate::hw::x87;

const MMIO_READ: u64 = 0x8000_0001;
const MMIO_WRITE: u64 = 0x8000_0002;

/// Every field is there, with this value.
fn filled(value: u64) -> Snapshot {
    let field = Field::new(value, true);
    Snapshot {
        exit_code: field,
        exit_info_1: field,
        exit_info_2: field,
        scratch: field,
        rax: field,
        rbx: field,
        rcx: field,
        rdx: field,
        rsi: field,
        cpl: field,
        xcr0: field,
        xss: field,
        usage: 0,
    }
}

fn exit(code: u64, info_1: u64, info_2: u64) -> Snapshot {
    Snapshot {
        exit_code: Field::new(code, true),
        exit_info_1: Field::new(info_1, true),
        exit_info_2: Field::new(info_2, true),
        ..filled(0)
    }
}

type Select = fn(&mut Snapshot) -> &mut Field;

const RAX: Select = |s| &mut s.rax;
const RCX: Select = |s| &mut s.rcx;
const RDX: Select = |s| &mut s.rdx;
const CPL: Select = |s| &mut s.cpl;
const XCR0: Select = |s| &mut s.xcr0;
const SCRATCH: Select = |s| &mut s.scratch;
const OPTIONAL: [Select; 9] = [
    RAX,
    |s| &mut s.rbx,
    RCX,
    RDX,
    |s| &mut s.rsi,
    CPL,
    XCR0,
    |s| &mut s.xss,
    SCRATCH,
];

/// Exit code, its information, RAX, and the fields that the specification wants with it.
const REQUIRED: &[(u64, u64, u64, &[Select])] = &[
    (0x27, 0, 0, &[]),                  // reading DR7
    (0x37, 0, 0, &[RAX]),               // writing DR7
    (0x6e, 0, 0, &[]),                  // RDTSC
    (0x6f, 0, 0, &[RCX]),               // RDPMC
    (0x72, 0, 1, &[RAX, RCX]),          // CPUID
    (0x72, 0, 0xd, &[RAX, RCX, XCR0]),  // CPUID of the extended state
    (0x76, 0, 0, &[]),                  // INVD
    (0x7b, 0x03f8_0010, 0, &[RAX]),     // OUT of a byte
    (0x7b, 0x03f8_0011, 0, &[]),        // IN of a byte
    (0x7b, 0x03f8_0014, 0, &[SCRATCH]), // OUTS
    (0x7b, 0x03f8_0015, 0, &[SCRATCH]), // INS
    (0x7c, 0, 0, &[RCX]),               // RDMSR
    (0x7c, 1, 0, &[RAX, RCX, RDX]),     // WRMSR
    (0x81, 0, 0, &[RAX, CPL]),          // VMMCALL
    (0x87, 0, 0, &[]),                  // RDTSCP
    (0x89, 0, 0, &[]),                  // WBINVD
    (0x8a, 0, 0, &[RAX, RCX, RDX]),     // MONITOR
    (0x8b, 0, 0, &[RAX, RCX]),          // MWAIT
    (MMIO_READ, 0xfed0_0000, 0, &[SCRATCH]),
    (MMIO_WRITE, 0xfed0_0000, 0, &[SCRATCH]),
    (0x8000_0003, 0, 0, &[]), // NMI complete
    (0x8000_0004, 0, 0, &[]), // AP reset hold
    (0x8000_0005, 0, 0, &[]), // AP jump table
    (0x8000_fffd, 0, 0, &[]), // hypervisor features
    (0x8000_fffe, 0, 0, &[]), // termination
    (0x8000_ffff, 0, 0, &[]), // unsupported event
];

fn required(index: usize) -> (Snapshot, &'static [Select]) {
    let (code, info_1, rax, fields) = REQUIRED[index];
    let mut guest = exit(code, info_1, 4);

    guest.rax = Field::new(rax, true);
    for select in OPTIONAL {
        let field = select(&mut guest);
        *field = Field::new(field.raw(), false);
    }
    for select in fields {
        let field = select(&mut guest);
        *field = Field::new(field.raw(), true);
    }
    (guest, fields)
}

#[test]
fn exits_with_just_what_they_need_are_served() {
    for (index, (code, ..)) in REQUIRED.iter().enumerate() {
        let (guest, _) = required(index);
        assert!(guest.decode(2, false).is_ok(), "{code:#x?}");
    }
}

#[test]
fn exits_without_one_of_what_they_need_are_not() {
    let always: [Select; 3] = [
        |s| &mut s.exit_code,
        |s| &mut s.exit_info_1,
        |s| &mut s.exit_info_2,
    ];
    for index in 0..REQUIRED.len() {
        let (complete, fields) = required(index);
        for select in always.iter().chain(fields) {
            let mut guest = complete;
            let field = select(&mut guest);
            *field = Field::new(field.raw(), false);
            assert_eq!(
                guest.decode(2, false),
                Err(Refusal::MissingInput),
                "{guest:#x?}"
            );
        }
    }
}

#[test]
fn refusals_have_their_numbers() {
    // SW_EXITINFO2 when SW_EXITINFO1 is 2.
    assert_eq!(Refusal::InvalidUsage.code(), 2);
    assert_eq!(Refusal::InvalidScratchArea.code(), 3);
    assert_eq!(Refusal::MissingInput.code(), 4);
    assert_eq!(Refusal::InvalidInput.code(), 5);
    assert_eq!(Refusal::InvalidEvent.code(), 6);
}

#[test]
fn arguments_are_those_of_the_exit() {
    assert_eq!(
        exit(MMIO_WRITE, 0xfee0_0020, 4).decode(2, false),
        Ok(Exit::Mmio {
            write: true,
            gpa: 0xfee0_0020,
            len: 4
        })
    );
    assert_eq!(
        exit(MMIO_READ, 7, 9).decode(1, false),
        Ok(Exit::Mmio {
            write: false,
            gpa: 7,
            len: 9
        })
    );
    assert_eq!(
        exit(MMIO_READ, 7, 9).decode(2, false),
        Err(Refusal::InvalidInput)
    );
    assert_eq!(exit(MMIO_READ, 7, 0).decode(2, false), Ok(Exit::Nothing));
    assert_eq!(
        exit(0x7b, 0x03f8_0000, 1).decode(2, false),
        Ok(Exit::Nothing)
    );
    assert_eq!(
        exit(0x8000_0005, 0, 0x9f000).decode(1, false),
        Ok(Exit::SetApJumpTable(0x9f000))
    );
    assert_eq!(
        exit(0x8000_0005, 1, 5).decode(1, false),
        Ok(Exit::GetApJumpTable)
    );
    assert_eq!(
        exit(0x8000_0005, 2, 5).decode(1, false),
        Err(Refusal::InvalidInput)
    );
    assert_eq!(
        exit(0x8000_fffe, 1, 2).decode(2, false),
        Ok(Exit::Terminate { reason: 1, info: 2 })
    );
}

#[test]
fn what_only_snp_guests_ask_for() {
    for code in 0x8000_0010..=0x8000_0013 {
        let guest = exit(code, 0x1000, 0x2000);
        assert_eq!(guest.decode(2, false), Err(Refusal::InvalidEvent));
        assert_eq!(
            Snapshot::default().decode(2, true),
            Err(Refusal::MissingInput)
        );
    }
    // As exit() fills in all fields.
    assert_eq!(
        exit(0x8000_0010, 0, 0).decode(2, true),
        Ok(Exit::Snp(SnpExit::PageStateChange))
    );

    let ap = |info_1| match exit(0x8000_0013, info_1, 0x7000).decode(2, true) {
        Ok(Exit::Snp(SnpExit::ApCreation {
            apic_id, action, ..
        })) => Ok((apic_id, action)),
        Err(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    };
    assert_eq!(ap(3 << 32), Ok((3, ApAction::Create { at_once: false })));
    assert_eq!(
        ap((3 << 32) | 1),
        Ok((3, ApAction::Create { at_once: true }))
    );
    assert_eq!(ap((7 << 32) | 2), Ok((7, ApAction::Destroy)));
    assert_eq!(ap(3), Err(Refusal::InvalidInput));

    for (request, response, ok) in [
        (0x1000, 0x2000, true),
        (0x1000, 0x1000, false),
        (0x1001, 0x2000, false),
        (0x1000, 0x2800, false),
    ] {
        let decoded = exit(0x8000_0011, request, response).decode(2, true);
        let expected = Exit::Snp(SnpExit::GuestRequest {
            request,
            response,
            certificates: Certificates::No,
        });
        let expected = ok.then_some(expected).ok_or(Refusal::InvalidInput);
        assert_eq!(decoded, expected);
    }

    let mut extended = exit(0x8000_0012, 0x1000, 0x2000);
    extended.rax = Field::new(0x3000, true);
    extended.rbx = Field::new(4, false);
    let certificates = |guest: &Snapshot| match guest.decode(2, true) {
        Ok(Exit::Snp(SnpExit::GuestRequest { certificates, .. })) => certificates,
        other => panic!("{other:?}"),
    };
    assert_eq!(certificates(&extended), Certificates::WithReport(None));
    extended.rbx = Field::new(4, true);
    assert_eq!(
        certificates(&extended),
        Certificates::WithReport(Some((0x3000, 4)))
    );
}

#[test]
fn scratch_areas_end_where_the_buffer_does() {
    let ghcb = |gpa, len| place(gpa, len, 0x8000, 2048..4080, 2);

    assert_eq!(
        ghcb(0x8800, 2032),
        Ok(Place::Ghcb {
            offset: 2048,
            len: 2032
        })
    );
    assert_eq!(ghcb(0x8800, 2033), Err(Unusable::LeavesBuffer));
    assert_eq!(ghcb(0x87ff, 1), Err(Unusable::LeavesBuffer));
    assert!(ghcb(0x8fe8, 8).is_ok());
    assert_eq!(ghcb(0x8fe9, 8), Err(Unusable::LeavesBuffer));

    let anywhere = |len| place(0x10_0000, len, 0x8000, 2048..4080, 1);
    assert!(anywhere(65536).is_ok());
    assert_eq!(anywhere(65537), Err(Unusable::TooLong));
}

/// Codes that mean something, and others.
fn code() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..0x100u64,
        0x8000_0000..0x8000_0020u64,
        0x8000_fff0..0x8001_0000u64,
        any::<u64>(),
    ]
}

fn field() -> impl Strategy<Value = Field> {
    (
        prop_oneof![0..32u64, any::<u64>()],
        prop::bool::weighted(0.9),
    )
        .prop_map(|(value, valid)| Field::new(value, valid))
}

fn snapshot() -> impl Strategy<Value = Snapshot> {
    let fields = prop::array::uniform11(field());
    (code(), prop::bool::weighted(0.9), fields, 0..20u32).prop_map(|(code, valid, f, usage)| {
        Snapshot {
            exit_code: Field::new(code, valid),
            exit_info_1: f[0],
            exit_info_2: f[1],
            scratch: f[2],
            rax: f[3],
            rbx: f[4],
            rcx: f[5],
            rdx: f[6],
            rsi: f[7],
            cpl: f[8],
            xcr0: f[9],
            xss: f[10],
            // Mostly 0.
            usage: usage.saturating_sub(18),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever the guest wrote: what is served is complete, what is refused has a reason.
    #[test]
    fn anything_is_read_as_something(guest in snapshot(), version in 0..4u16) {
        let code = guest.exit_code.raw();
        let snp_only = (0x8000_0010..=0x8000_0013).contains(&code);
        let complete = guest.exit_code.is_valid()
            && guest.exit_info_1.is_valid()
            && guest.exit_info_2.is_valid();

        match guest.decode(version, false) {
            Err(Refusal::InvalidUsage) => prop_assert!(guest.usage != 0),
            Err(Refusal::NotRegistered | Refusal::InvalidScratchArea) => {
                prop_assert!(false, "not looked at here");
            }
            Err(Refusal::MissingInput) => {
                prop_assert!(guest.usage == 0 && !snp_only);
                prop_assert!(!complete || OPTIONAL.iter().any(|f| !f(&mut guest.clone()).is_valid()));
            }
            Err(Refusal::InvalidInput) => {
                prop_assert!(complete);
                prop_assert!([MMIO_READ, MMIO_WRITE, 0x8000_0005].contains(&code));
            }
            Err(Refusal::InvalidEvent) => {
                prop_assert!(guest.usage == 0);
                prop_assert!(snp_only || complete);
                prop_assert!(REQUIRED.iter().all(|known| known.0 != code));
            }
            Ok(exit) => {
                prop_assert!(guest.usage == 0 && complete && !snp_only);
                match exit {
                    Exit::Intercept(known) => {
                        prop_assert_eq!(known, code);
                        prop_assert!(known < 0x100);
                    }
                    Exit::Mmio { write, gpa, len } => {
                        prop_assert_eq!(code, if write { MMIO_WRITE } else { MMIO_READ });
                        prop_assert_eq!(gpa, guest.exit_info_1.raw());
                        prop_assert_eq!(len, guest.exit_info_2.raw());
                        prop_assert!(len > 0 && (version < 2 || len <= 8));
                        prop_assert!(guest.scratch.is_valid());
                    }
                    _ => prop_assert!(REQUIRED.iter().any(|known| known.0 == code)),
                }
            }
        }
    }

    /// The lower 12 bits say what the value is.
    #[test]
    fn msr_requests(value in any::<u64>(), code in prop_oneof![0..0x20u64, 0x80..0x82u64, 0x100..0x102u64]) {
        let value = value & !0xfff | code;
        let data = value >> 12;

        let expected = match code {
            0 => None,
            0x002 => Some(Request::SevInfo),
            0x004 => Some(Request::Cpuid {
                function: (value >> 32) as u32,
                register: [
                    CpuidRegister::Eax,
                    CpuidRegister::Ebx,
                    CpuidRegister::Ecx,
                    CpuidRegister::Edx,
                ][(value >> 30) as usize % 4],
            }),
            0x006 => Some(Request::ApResetHold),
            0x080 => Some(Request::HvFeatures),
            0x010 => Some(Request::Snp(SnpRequest::PreferredGhcb)),
            0x012 => Some(Request::Snp(SnpRequest::RegisterGhcb(data << 12))),
            0x014 => Some(Request::Snp(SnpRequest::PageState {
                gfn: data % (1 << 40),
                state: match (value >> 52) & 0xf {
                    1 => Some(PageState::Private),
                    2 => Some(PageState::Shared),
                    _ => None,
                },
            })),
            0x100 => Some(Request::Terminate {
                set: (data % 16) as u8,
                reason: (data / 16 % 256) as u8,
            }),
            _ => Some(Request::Unknown),
        };
        prop_assert_eq!(Request::decode(value), expected);
    }

    #[test]
    fn msr_answers(request in any::<u64>(), value in any::<u32>()) {
        let answer = msr::cpuid(request, value);
        prop_assert_eq!(answer & 0xfff, 0x005);
        prop_assert_eq!((answer >> 32) as u32, value);
        prop_assert_eq!((answer ^ request) & 0xffff_f000, 0);
    }

    /// What is found is as long as asked for, and inside of what it may be in.
    #[test]
    fn scratch_areas(
        gpa in prop_oneof![0x7000..0x9100u64, (u64::MAX - 0x2000)..=u64::MAX, any::<u64>()],
        len in prop_oneof![1..0x1100u64, 0xfff0..0x1_0010u64, any::<u64>()],
        version in 1..3u16,
    ) {
        let ghcb = 0x8000;
        let end = gpa.checked_add(len);

        match place(gpa, len, ghcb, 2048..4080, version) {
            Ok(found @ Place::Ghcb { offset, .. }) => {
                prop_assert_eq!(ghcb + offset as u64, gpa);
                prop_assert_eq!(found.len() as u64, len);
                prop_assert!(gpa >= 0x8800 && end.unwrap() <= 0x8ff0);
            }
            Ok(found @ Place::Memory { gpa: at, .. }) => {
                prop_assert_eq!((at, found.len() as u64), (gpa, len));
                prop_assert!(version == 1 && gpa / 4096 != 8 && len <= 65536);
                prop_assert!(end.is_some());
            }
            Err(Unusable::NoAddress) => prop_assert_eq!(gpa, 0),
            Err(Unusable::Wraps) => prop_assert_eq!(end, None),
            Err(Unusable::LeavesBuffer) => {
                prop_assert!(gpa / 4096 == 8 && (gpa < 0x8800 || end.unwrap() > 0x8ff0));
            }
            Err(Unusable::OutsideGhcb) => prop_assert!(version == 2 && gpa / 4096 != 8),
            Err(Unusable::TooLong) => prop_assert!(version == 1 && len > 65536),
        }
    }

    /// Nothing lost, nothing twice, no page crossed.
    #[test]
    fn chunks_are_the_pages(gpa in prop_oneof![0..0x3000u64, (u64::MAX - 0x1_5000)..(u64::MAX - 0x1_1000)], len in 0..0x1_0001usize) {
        let mut done = 0;
        for (at, part) in chunks(gpa, len) {
            prop_assert_eq!(part.start, done);
            prop_assert!(part.end > part.start);
            prop_assert_eq!(at, gpa + done as u64);
            prop_assert_eq!(at / 4096, (at + part.len() as u64 - 1) / 4096);
            done = part.end;
        }
        prop_assert_eq!(done, len);
    }

    /// FXSAVE has 16 bytes for each register, the last 6 of them unused.
    #[test]
    fn x87_registers(bytes in prop::array::uniform32(any::<u32>())) {
        let image: Vec<u8> = bytes.iter().flat_map(|word| word.to_le_bytes()).collect();
        let packed = x87::pack(&bytes);

        for n in 0..8 {
            prop_assert_eq!(&packed[n * 8..n * 8 + 8], &image[n * 16..n * 16 + 8]);
            prop_assert_eq!(&packed[64 + n * 2..66 + n * 2], &image[n * 16 + 8..n * 16 + 10]);
        }
    }
}

#[test]
fn fixed_msr_answers() {
    // Versions 1 to 2, and the C-bit at 51.
    assert_eq!(msr::sev_info(2, 1, 51), 0x0002_0001_3300_0001);
    assert_eq!(msr::ap_reset_hold(false), 0x007);
    assert_eq!(msr::ap_reset_hold(true), 0x1007);
    assert_eq!(msr::hv_features(3), 0x3081);
}
