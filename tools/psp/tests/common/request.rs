// SPDX-License-Identifier: GPL-2.0-or-later
//! Guest messages, as a guest makes and reads them.

use aes_gcm::aead::AeadInPlace;
use aes_gcm::{Aes256Gcm, KeyInit};
use sevfw::snp::wire;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use super::snp::{FIRMWARE, GCTX, OUT, POLICY, page, pre_guest};
use super::{BUF, GUEST, Outcome, Psp};

/// A guest's end of the channel under one VMPCK.
pub struct Channel {
    pub gctx: u64,
    pub key: [u8; 32],
    pub vmpck: u8,
    /// Sequence number of the last response.
    pub sequence: u64,
}

fn iv(sequence: u64) -> [u8; 12] {
    let mut iv = [0; 12];
    iv[..8].copy_from_slice(&sequence.to_le_bytes());
    iv
}

impl Channel {
    /// With the key that the guest finds in its secrets page.
    pub fn new(psp: &Psp, gctx: u64, asid: u32, secrets: u64, vmpck: u8) -> Self {
        let page = psp.machine.get_guest(asid, secrets, 4096);
        let secrets = wire::Secrets::read_from_bytes(&page).unwrap();
        Self {
            gctx,
            key: secrets.vmpck[usize::from(vmpck)],
            vmpck,
            sequence: 0,
        }
    }

    /// Of a guest that runs now, under VMPCK 0.
    pub fn of_running(psp: &mut Psp, asid: u32) -> Self {
        psp.snp_launching(GCTX, asid, POLICY);
        psp.rmpupdate(GUEST, pre_guest(asid.into(), 0));
        psp.snp_update(GCTX, page::SECRETS, GUEST).unwrap();
        psp.snp_finish(GCTX).unwrap();
        Self::new(psp, GCTX, asid, GUEST, 0)
    }

    /// A good header for the next request.
    pub fn header(&self, kind: u8, size: usize) -> wire::MessageHeader {
        let mut header = wire::MessageHeader::new_zeroed();
        header.sequence = U64::new(self.sequence + 1);
        (header.algorithm, header.header_version, header.version) = (1, 1, 1);
        header.header_size = U16::new(96);
        (header.kind, header.vmpck) = (kind, self.vmpck);
        header.size = U16::new(size as u16);
        header
    }

    /// A request page, encrypted.
    pub fn seal(&self, mut header: wire::MessageHeader, payload: &[u8]) -> Vec<u8> {
        let mut ciphertext = payload.to_vec();
        let aad = header.as_bytes()[48..].to_vec();
        let iv = iv(header.sequence.get());
        let tag = Aes256Gcm::new((&self.key).into())
            .encrypt_in_place_detached(&iv.into(), &aad, &mut ciphertext)
            .unwrap();
        header.authtag[..16].copy_from_slice(&tag);
        let mut page = [header.as_bytes(), &ciphertext].concat();
        page.resize(4096, 0);
        page
    }

    /// The plaintext of a response page.
    pub fn open(&self, page: &[u8]) -> (wire::MessageHeader, Vec<u8>) {
        let (header, payload) = wire::MessageHeader::read_from_prefix(page).unwrap();
        let mut plaintext = payload[..usize::from(header.size.get())].to_vec();
        let iv = iv(header.sequence.get());
        let tag: [u8; 16] = *header.authtag.first_chunk().unwrap();
        Aes256Gcm::new((&self.key).into())
            .decrypt_in_place_detached(
                &iv.into(),
                &header.as_bytes()[48..],
                &mut plaintext,
                &tag.into(),
            )
            .unwrap();
        (header, plaintext)
    }

    /// Sends a request page; the response page.
    pub fn send(&self, psp: &mut Psp, page: &[u8]) -> Outcome<Vec<u8>> {
        psp.machine.put(BUF, page);
        psp.rmpupdate(OUT, FIRMWARE);
        let cmd = wire::GuestRequest {
            gctx_address: U64::new(self.gctx),
            request_address: U64::new(BUF),
            response_address: U64::new(OUT),
        };
        psp.ok("SNP_GUEST_REQUEST", &cmd)?;
        assert_eq!(psp.rmp(OUT), FIRMWARE);
        Ok(psp.machine.get(OUT, 4096))
    }

    /// A request and its response.
    pub fn ask<T: FromBytes>(
        &mut self,
        psp: &mut Psp,
        kind: u8,
        request: &(impl IntoBytes + Immutable + ?Sized),
    ) -> Outcome<T> {
        let header = self.header(kind, request.as_bytes().len());
        let page = self.send(psp, &self.seal(header, request.as_bytes()))?;
        let (header, payload) = self.open(&page);
        self.sequence += 2;
        assert_eq!(header.sequence.get(), self.sequence);
        assert_eq!((header.kind, header.version), (kind + 1, 1));
        Ok(T::read_from_bytes(&payload).unwrap())
    }

    /// The report of a guest about itself.
    pub fn report(&mut self, psp: &mut Psp, data: [u8; 64]) -> Outcome<wire::ReportResponse> {
        let mut request = wire::ReportRequest::new_zeroed();
        request.report_data = data;
        request.vmpl = U32::new(self.vmpck.into());
        self.ask(psp, 5, &request)
    }
}
