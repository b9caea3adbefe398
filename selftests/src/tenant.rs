// SPDX-License-Identifier: GPL-2.0-or-later
//! The guest owner's side of a launch, by the crate `sev`: nothing here is our own cryptography.

use anyhow::{Context, Result, anyhow};
use kvm_bindings::{kvm_sev_launch_secret, kvm_sev_launch_start};
use sev::certs::sev::sev::Certificate;
use sev::firmware::host::{Build, Firmware};
use sev::launch::sev::{HeaderFlags, Measurement, Policy, Secret, Start};
use sev::session::{Initialized, Session, Verified};

use crate::cmd::Answer;
use crate::vm::Vm;

/// A guest owner who has prepared a launch for this platform.
pub struct Owner {
    session: Session<Initialized>,
    start: Start,
}

impl Owner {
    /// Prepares a session for the platform's current PDH.
    pub fn prepare(policy: u32) -> Result<Self> {
        let chain = firmware()?.pdh_cert_export().map_err(|e| anyhow!("PDH_CERT_EXPORT: {e:?}"))?;
        Self::prepare_for(policy, chain.pdh)
    }

    /// Prepares a session for a given PDH.
    pub fn prepare_for(policy: u32, pdh: Certificate) -> Result<Self> {
        let session = Session::try_from(Policy::from(policy)).map_err(|e| anyhow!("{e:?}"))?;
        let start = session.start_pdh(pdh).map_err(|e| anyhow!("session: {e:?}"))?;
        Ok(Self { session, start })
    }

    /// The owner's DH certificate as LAUNCH_START takes it.
    pub fn certificate(&self) -> Vec<u8> {
        bytes_of(&self.start.cert)
    }

    /// The session blob as LAUNCH_START takes it.
    pub fn session_blob(&self) -> Vec<u8> {
        bytes_of(&self.start.session)
    }

    /// LAUNCH_START with this owner's certificate and session.
    pub fn launch_start(&self, vm: &Vm, policy: u32) -> Answer {
        let (certificate, session) = (self.certificate(), self.session_blob());
        vm.launch_start(&mut kvm_sev_launch_start {
            policy,
            dh_uaddr: certificate.as_ptr() as u64,
            dh_len: certificate.len() as u32,
            session_uaddr: session.as_ptr() as u64,
            session_len: session.len() as u32,
            ..Default::default()
        })
    }

    /// Recomputes the measurement of `launched` and compares it with the firmware's.
    pub fn verify(self, build: Build, launched: &[&[u8]], measurement: &[u8]) -> Result<Verdict> {
        let measurement = Measurement {
            measure: measurement[..32].try_into()?,
            mnonce: measurement[32..48].try_into()?,
        };
        let mut session = self.session.measure()?;
        for part in launched {
            session.update_data(part)?;
        }
        Ok(match session.verify(build, measurement) {
            Ok(verified) => Verdict::Genuine(verified),
            Err(_) => Verdict::Tampered,
        })
    }
}

/// A session whose owner has accepted the measurement.
pub type VerifiedSession = Session<Verified>;

/// What the owner thinks of a measurement.
pub enum Verdict {
    /// It is the one of the expected content: secrets may be sent.
    Genuine(VerifiedSession),
    /// It is not.
    Tampered,
}

/// A secret packet for LAUNCH_SECRET.
pub struct Packet {
    header: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl Packet {
    /// Encrypts `secret` for the guest of a verified session.
    pub fn new(session: &VerifiedSession, secret: &[u8]) -> Result<Self> {
        let Secret { header, ciphertext } =
            session.secret(HeaderFlags::default(), secret).map_err(|e| anyhow!("{e:?}"))?;
        Ok(Self { header: bytes_of(&header), ciphertext })
    }

    /// The header, for a test to tamper with.
    pub fn header_mut(&mut self) -> &mut [u8] {
        &mut self.header
    }

    /// The encrypted secret, for a test to tamper with.
    pub fn ciphertext_mut(&mut self) -> &mut [u8] {
        &mut self.ciphertext
    }

    /// The LAUNCH_SECRET argument that puts the secret at user address `guest`. It holds
    /// addresses of this packet's buffers: the packet has to outlive the command.
    pub fn argument(&self, guest: u64) -> kvm_sev_launch_secret {
        kvm_sev_launch_secret {
            hdr_uaddr: self.header.as_ptr() as u64,
            hdr_len: self.header.len() as u32,
            guest_uaddr: guest,
            guest_len: self.ciphertext.len() as u32,
            trans_uaddr: self.ciphertext.as_ptr() as u64,
            trans_len: self.ciphertext.len() as u32,
            ..Default::default()
        }
    }
}

/// The platform's firmware, through the crate's own `/dev/sev`.
pub fn firmware() -> Result<Firmware> {
    Firmware::open().context("open /dev/sev")
}

/// The firmware's version and build, which are part of every measurement.
pub fn build() -> Result<Build> {
    let status = firmware()?.platform_status().map_err(|e| anyhow!("PLATFORM_STATUS: {e:?}"))?;
    Ok(status.build)
}

/// The bytes of a `repr(C, packed)`-like wire structure of the crate `sev`.
pub(crate) fn bytes_of<T>(wire: &T) -> Vec<u8> {
    // SAFETY: the types passed (Certificate, launch::sev::Session, Header) are repr(C) wire
    // formats without padding, made of integers only; the crate itself hands them to the
    // kernel by address in the same way.
    unsafe { std::slice::from_raw_parts((&raw const *wire).cast(), size_of::<T>()) }.to_vec()
}
