// SPDX-License-Identifier: GPL-2.0-or-later
//! Random commands with random buffers: nothing panics, and the invariants hold after each.

mod common;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use common::snp::*;
use common::*;
use proptest::prelude::*;
use sevfw::command::COMMANDS;
use sevfw::crypto::ca;
use sevfw::firmware::Event;
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

const SLOTS: usize = 6;
const PDH: u32 = 0x50_000;
const CHAIN: u32 = 0x52_000;
const AMD: u32 = 0x54_000;
/// A session that the other platform made for the seeded one.
const SESSION: u32 = 0x58_000;
/// One byte before the end of memory.
const EDGE: u32 = RAM as u32 - 1;

/// A page that an SNP guest may get, and those whose RMP entries change.
const PAGE: u64 = 0x120_000;
const PAGES: [u64; 7] = [BUF, BUF2, GUEST, GCTX, GCTX2, OUT, PAGE];
/// A context can be made of those, and of the page that has the commands' buffers.
const CONTEXTS: [u64; 8] = [BUF, BUF2, GUEST, GCTX, GCTX2, OUT, PAGE, CMD];
const SNP_ASID: u32 = 50;

#[derive(Clone, Debug)]
enum Step {
    /// A command, by its place in the table, for a guest, with some words of a good buffer
    /// replaced.
    Command(usize, u32, Vec<(usize, u32)>),
    /// A number that may be no command, with any buffer address.
    Wild(u32, u64),
    /// A WBINVD on every core and DF_FLUSH.
    Flush,
    Wbinvd(u32),
    Reset,
    /// Bytes somewhere in memory.
    Poke(u32, Vec<u8>),
    /// RMPUPDATE of one of [`PAGES`].
    Rmp(usize, [u64; 2]),
    /// A control request.
    Control(String),
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => Just(0),
        6 => 1..6u32,
        3 => prop::sample::select(vec![1, 4, 99, 100, 101, 509, 510]),
        4 => prop::sample::select(vec![16, 24, 32, 36, 48, 52, 64, 128, 208, 2084, 3200, 4096, 6252, 0x8000]),
        6 => prop::sample::select(vec![
            BUF as u32, BUF2 as u32, GUEST as u32, TMR as u32, NV as u32, CMD as u32, PDH, CHAIN,
            AMD, EDGE, 1 << 20, 2 << 20
        ]),
        1 => any::<u32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let request = prop::sample::select(vec![
        "counters",
        "log-start",
        "log",
        "reset-counters",
        "clear-faults",
        "fault cmd=any n=2 status=0x3",
        "fault cmd=ACTIVATE n=1 delay=4294967295",
        "fault",
        "\u{0}",
    ]);
    let change = (0..17usize, word());
    // Most buffers are good, and the commands that end everything are rare.
    let changes = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(change, 1..3)];
    let handle = prop_oneof![Just(None), (1..7u32).prop_map(Some)];
    let guest = (0..COMMANDS.len(), handle, changes).prop_map(|(n, handle, changes)| {
        let handle = handle.unwrap_or_else(|| suitable(COMMANDS[n].id));
        Step::Command(n, handle, changes)
    });
    let gentle = guest.prop_filter("ends everything", |step| match step {
        Step::Command(n, ..) => !matches!(COMMANDS[*n].id, 2 | 0x82 | 0x86),
        _ => true,
    });
    let end = prop::sample::select(vec![2u32, 0x82, 0x86]);
    prop_oneof![
        100 => gentle,
        1 => end.prop_map(|id| Step::Wild(id, CMD)),
        2 => (any::<u32>(), any::<u64>()).prop_map(|(id, at)| Step::Wild(id, at)),
        2 => (3..0xd6u32, any::<u64>()).prop_map(|(id, at)| Step::Wild(id, at)),
        4 => Just(Step::Flush),
        1 => (0..4u32).prop_map(Step::Wbinvd),
        1 => Just(Step::Reset),
        3 => (0..RAM as u32, prop::collection::vec(any::<u8>(), 1..64))
            .prop_map(|(at, bytes)| Step::Poke(at, bytes)),
        12 => (0..PAGES.len(), entry()).prop_map(|(n, entry)| Step::Rmp(n, entry)),
        2 => request.prop_map(|request| Step::Control(request.into())),
    ]
}

fn entry() -> impl Strategy<Value = [u64; 2]> {
    prop_oneof![
        4 => Just(FIRMWARE),
        4 => Just(pre_guest(SNP_ASID.into(), 0x1000)),
        1 => Just([0; 2]),
        1 => Just(RECLAIM),
        1 => Just([FIRMWARE[0] | LARGE, 0]),
        1 => any::<u64>().prop_map(|low| [low & !(VMSA | VALIDATED), 0]),
    ]
}

/// The guest of [`prepared`] that is in the right state for a command.
fn suitable(id: u32) -> u32 {
    match id {
        0x34 | 0x35 => 2,
        0x24 | 0x36 | 0x40 | 0x60 | 0x61 => 3,
        0x41..=0x44 => 4,
        0x51..=0x53 => 5,
        _ => 1,
    }
}

/// A buffer that suits the command if the guest is in the right state.
fn good(id: u32, handle: u32) -> Vec<u32> {
    let (buf, buf2, guest) = (BUF as u32, BUF2 as u32, GUEST as u32);
    // Odd handles are those of ES guests, see `prepared`.
    let (asid, policy) = if handle % 2 == 1 {
        (handle, 4)
    } else {
        (100 + handle, 0)
    };
    match id {
        0x01 => vec![1, 0, TMR as u32, 0, 1 << 20],
        0x0d => vec![36, 1, TMR as u32, 0, 1 << 20, 0, NV as u32, 0, 32 << 10],
        0x06 | 0x0c => vec![buf, 0, 2084],
        0x07 => vec![CHAIN, 0, 2084, 0, CHAIN + 2084, 0, 2084],
        0x08 => vec![buf, 0, 2084, 0, buf2, 0, 6252],
        0x21 => vec![handle, asid],
        0x25 => vec![24, handle, asid, 1, buf, 0],
        0x24 => vec![handle, 4096, guest, 0, guest + 0x800, 0],
        0x30 => vec![0, policy],
        0x31 | 0x32 => vec![handle, 0, guest, 0, 4096],
        0x33 => vec![handle, 0, buf, 0, 48],
        0x36 => vec![handle, 0, buf, 0, 1, 2, 3, 4, 208],
        0x40 => vec![
            handle, 0, PDH, 0, 2084, 0, CHAIN, 0, 6252, 0, AMD, 0, 3200, 0, buf, 0, 128,
        ],
        0x34 | 0x41 | 0x42 | 0x51 | 0x52 => {
            vec![handle, 0, buf, 0, 52, 0, guest, 0, 4096, 0, buf2, 0, 4096]
        }
        0x50 => vec![0, policy, PDH, 0, 2084, 0, SESSION, 0, 128],
        0x60 | 0x61 => vec![handle, 0, guest, 0, buf, 0, 4096],
        0x83 | 0xc7 => vec![buf2, 0],
        0x90 | 0x93 => vec![GCTX as u32, 0],
        0x91 => vec![GCTX as u32, 0, SNP_ASID],
        0x92 => vec![GCTX as u32, 0, OUT as u32, 0],
        0x94 => vec![GCTX as u32, 0, buf, 0, OUT as u32, 0],
        0x95 => vec![32, 0, GCTX as u32, 0, SNP_ASID, 1, buf, 0],
        0xa0 => [[GCTX as u32, 0, POLICY as u32, 0], [0; 4], [0; 4]].concat(),
        0xa1 => vec![GCTX as u32, 0, (handle % 7) << 1, 0, PAGE as u32, 0, 0, 0],
        0xa2 => [[GCTX as u32, 0, buf, 0], [buf2, 0, 0, 0], [0; 4], [0; 4]].concat(),
        0xb0 | 0xb1 => vec![GCTX as u32, 0, PAGE as u32, 0, OUT as u32, 0],
        0xc9 => vec![0; 16],
        0xcb => vec![4],
        0xcd => vec![16, 0, buf, 0],
        0x85 => vec![1],
        0x86 => vec![8, 1],
        0xce => vec![16, 0, buf2, 0],
        _ => vec![handle],
    }
}

const CONFIG: &str = "seed=02,slots=6";

/// PDH, chain and AMD certificates of another platform, and a session from it, made once.
fn foreign() -> &'static [Vec<u8>; 4] {
    static CERTS: OnceLock<[Vec<u8>; 4]> = OnceLock::new();
    CERTS.get_or_init(|| {
        let mut other = Psp::ready("chip=other,seed=01");
        let (pdh, chain) = other.export();
        let (our_pdh, our_chain) = Psp::ready(CONFIG).export();
        let amd = ca::ask_ark().unwrap();
        let handle = other.running(4, 1, 1);
        other.machine.put(PDH.into(), our_pdh.as_bytes());
        other.machine.put(CHAIN.into(), our_chain.as_bytes());
        other.machine.put(AMD.into(), &amd);
        command(&mut other, 0x40, &good(0x40, handle));
        let session = other.machine.get(BUF, 128);
        [
            pdh.as_bytes().to_vec(),
            chain.as_bytes().to_vec(),
            amd,
            session,
        ]
    })
}

fn put_foreign(psp: &Psp, blobs: &[Vec<u8>; 4]) {
    for (at, bytes) in [PDH, CHAIN, AMD, SESSION].into_iter().zip(blobs) {
        psp.machine.put(at.into(), bytes);
    }
}

/// A platform with an SNP guest that is being launched and a page for it.
fn prepared_snp() -> Psp {
    let mut psp = Psp::snp(CONFIG);
    psp.snp_launching(GCTX, SNP_ASID, POLICY);
    psp.rmpupdate(PAGE, pre_guest(SNP_ASID.into(), 0x1000));
    psp.rmpupdate(OUT, FIRMWARE);
    psp
}

/// A platform with guests in every state; odd handles have ES.
fn prepared() -> Psp {
    let mut psp = Psp::ready(CONFIG);
    put_foreign(&psp, foreign());
    for handle in 1..=5 {
        let (asid, policy) = if handle % 2 == 1 {
            (handle, 4)
        } else {
            (100 + handle, 0)
        };
        let made = if handle == 5 {
            command(&mut psp, 0x50, &good(0x50, handle));
            psp.machine.read::<U32>(CMD).get()
        } else {
            psp.launch_start(policy).unwrap()
        };
        assert_eq!(made, handle);
        psp.activate(handle, asid).unwrap();
    }
    for (handle, ids) in [
        (2, &[0x31, 0x33][..]),
        (3, &[0x33, 0x35]),
        (4, &[0x33, 0x35, 0x40]),
    ] {
        for id in ids {
            command(&mut psp, *id, &good(*id, handle));
        }
    }
    let states: Vec<u8> = (1..=5)
        .map(|handle| psp.guest_status(handle).unwrap().state)
        .collect();
    use guest_state::*;
    assert_eq!(states, [LUPDATE, LSECRET, RUNNING, SUPDATE, RUPDATE]);
    psp
}

fn command(psp: &mut Psp, id: u32, words: &[u32]) {
    if psp.rmp(CMD)[0] & IMMUTABLE == 0 {
        psp.rmpupdate(CMD, FIRMWARE);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    psp.machine.put(CMD, &bytes);
    psp.fw.command(id, CMD);
}

/// What `ask` says while the page is in the Firmware state, as buffers of commands have to be.
fn as_firmware<T>(psp: &mut Psp, spa: u64, ask: impl FnOnce(&mut Psp) -> T) -> T {
    let entry = psp.rmp(spa);
    psp.rmpupdate(spa, FIRMWARE);
    let said = ask(psp);
    psp.rmpupdate(spa, entry);
    said
}

/// The contexts are the pages that the RMP says are contexts; adds the owners of ASIDs.
fn check_snp(psp: &mut Psp, owners: &mut BTreeMap<u32, u32>) -> usize {
    let mut contexts = 0;
    for (n, spa) in CONTEXTS.into_iter().enumerate() {
        let entry = psp.rmp(spa);
        let status = as_firmware(psp, CMD, |psp| {
            as_firmware(psp, OUT, |psp| psp.snp_state(spa))
        });
        let Ok(status) = status else {
            continue;
        };
        contexts += 1;
        assert_eq!(entry, [FIRMWARE[0] | VMSA, 0]);
        let asid = status.asid.get();
        if asid != 0 {
            assert_eq!(owners.insert(asid, 1000 + n as u32), None);
            assert!(asid < 100);
        }
    }
    contexts
}

fn check(psp: &mut Psp) {
    let counters: serde_json::Value = serde_json::from_str(&psp.fw.control("counters")).unwrap();
    let contexts = counters["contexts"].as_u64().unwrap() as usize;
    assert!(contexts <= SLOTS + CONTEXTS.len());
    let keys: Vec<u32> = psp.machine.look().keys.keys().copied().collect();
    assert_eq!(
        counters["asids_bound"].as_u64().unwrap() as usize,
        keys.len()
    );
    assert!(keys.iter().all(|asid| (1..=509).contains(asid)));
    psp.fw.control("clear-faults");
    let status = as_firmware(psp, CMD, Psp::status);
    let mut owners = BTreeMap::new();
    let snp = check_snp(psp, &mut owners);
    let contexts = contexts - snp;
    assert_eq!(status.guest_count.get() as usize, contexts);
    assert_eq!(status.state == 2, contexts > 0);
    assert!(status.state != 0 || keys.len() == owners.len());
    let mut found = 0;
    for handle in 1..100 {
        let Ok(guest) = as_firmware(psp, CMD, |psp| psp.guest_status(handle)) else {
            continue;
        };
        found += 1;
        assert!((1..=6).contains(&guest.state));
        let (asid, es) = (guest.asid.get(), guest.policy.get() & 4 != 0);
        if asid != 0 {
            assert_eq!(
                owners.insert(asid, handle),
                None,
                "ASID {asid} has two owners"
            );
            assert_eq!(es, asid < 100);
        }
    }
    assert_eq!(found, contexts);
    assert_eq!(owners.into_keys().collect::<Vec<_>>(), keys);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn hostile_commands_do_no_harm(
        snp in any::<bool>(),
        steps in prop::collection::vec(step(), 1..100),
    ) {
        let mut psp = if snp { prepared_snp() } else { prepared() };
        for step in steps {
            match step {
                Step::Command(n, handle, changes) => {
                    let id = COMMANDS[n].id;
                    let mut words = good(id, handle);
                    for (at, word) in changes {
                        let at = at % words.len();
                        words[at] = word;
                    }
                    command(&mut psp, id, &words);
                }
                Step::Wild(id, at) => { psp.fw.command(id, at); }
                Step::Flush => { let _ = psp.flush(); }
                Step::Wbinvd(core) => psp.fw.event(Event::Wbinvd(core)),
                Step::Reset => psp.fw.event(Event::Reset),
                Step::Poke(at, bytes) => {
                    let len = bytes.len().min(RAM - at as usize);
                    psp.machine.put(at.into(), &bytes[..len]);
                }
                Step::Rmp(n, entry) => {
                    if psp.rmp(PAGES[n])[0] & IMMUTABLE == 0 {
                        psp.rmpupdate(PAGES[n], entry);
                    }
                }
                Step::Control(request) => { psp.fw.control(&request); }
            }
            check(&mut psp);
        }
    }

    /// Certificates of any content, where an owner or another platform would put them.
    #[test]
    fn hostile_certificates_do_no_harm(
        damage in prop::collection::vec((0..4usize, 0..6252usize, any::<u8>()), 1..12),
        rsa in any::<bool>(),
        policy in prop::sample::select(vec![0u32, 0x10, 0x20, 0x30]),
    ) {
        let mut psp = Psp::ready(CONFIG);
        let handle = psp.running(policy, 100, 1);
        let mut blobs = foreign().clone();
        if rsa {
            // Everything says RSA, so that curve points are taken for moduli.
            for cert in blobs[1].chunks_mut(2084) {
                cert[12..16].copy_from_slice(&0x101u32.to_le_bytes());
                cert[16..20].copy_from_slice(&4096u32.to_le_bytes());
                cert[1048..1052].copy_from_slice(&0x101u32.to_le_bytes());
            }
        }
        for (which, at, value) in damage {
            let blob = &mut blobs[which];
            let at = at % blob.len();
            blob[at] = value;
        }
        put_foreign(&psp, &blobs);
        for id in [0x40, 0x30, 0x50] {
            command(&mut psp, id, &good(id, handle));
        }
        psp.plain("SHUTDOWN").unwrap();
        psp.init(true).unwrap();
        command(&mut psp, 7, &good(7, 0));
        prop_assert_eq!(psp.status().flags.get() & 1, 0);
    }
}
