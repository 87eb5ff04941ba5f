//! What of a request is kept as a dead letter because it could not be decoded.

use super::{
    Incoming, Refusal,
    admission::Reservation,
    decode::{Decoded, Decoder, reserve},
};
use crate::{
    event::Digest,
    timescale::{DeadLetter, EncodedRows, Stage, WriteRequest},
};

/// How often a letter's bytes are held on their way to PostgreSQL: itself, the statement's parameters, what is sent.
const LETTER_COPIES: usize = 3;
/// What one letter takes beside the bytes that it keeps, up to its commit.
const LETTER_BYTES: usize = 1024;

/// Memory that a letter of so many bytes takes up to its commit.
pub(super) fn letter_memory(kept: usize) -> usize {
    LETTER_BYTES + LETTER_COPIES * kept
}

/// Why nothing of a body could be read.
#[derive(Debug, Clone)]
pub struct Undecodable {
    /// Stable name, as in the dead letter's `reason`.
    pub reason: String,
    /// For the sender's eyes: what and why.
    pub detail: String,
    /// 413 instead of 400.
    pub too_large: bool,
}

impl Undecodable {
    /// By a stable name and in words.
    pub(super) fn unread(reason: &str, detail: &impl ToString) -> Self {
        Self {
            reason: reason.to_owned(),
            detail: detail.to_string(),
            too_large: false,
        }
    }
}

impl Decoder {
    /// Keeps a body of which nothing can be read, as far as letters go, and the memory for it.
    ///
    /// # Errors
    /// [`Refusal`] if that is not free.
    pub(super) fn keep_undecodable(
        &self,
        incoming: &Incoming,
        digest: Digest,
        undecodable: Undecodable,
        reservation: &mut Reservation,
    ) -> Result<Decoded, Refusal> {
        reserve(
            reservation,
            incoming.body.len() + LETTER_COPIES * self.cut(&incoming.body).len(),
        )?;
        Ok(self.keep_body(incoming, digest, undecodable))
    }

    /// Keeps a request that needs more memory than all requests may use. Sent again it would be refused again, for ever,
    /// and its sender drops it after the 413: so all of it is kept, to be redriven where there is more room, or what is
    /// known of it if there is no room even for that.
    ///
    /// # Errors
    /// [`Refusal::Busy`] if the memory for it is not free.
    pub(super) fn keep_what_never_fits(
        &self,
        incoming: &Incoming,
        digest: Digest,
        bytes: usize,
        reservation: &mut Reservation,
    ) -> Result<Decoded, Refusal> {
        let undecodable = Undecodable {
            reason: "request_too_large".to_owned(),
            detail: format!(
                "it needs {bytes} bytes of memory, more than http.inflight_bytes_max; send smaller batches"
            ),
            too_large: true,
        };
        let mut decoded = self.keep_body(incoming, digest, undecodable);
        reservation.shrink_to(incoming.body.len());
        match reserve(reservation, (1 + LETTER_COPIES) * incoming.body.len()) {
            Ok(()) => {
                for letter in &mut decoded.request.dead_letters {
                    letter.raw = incoming.body.to_vec();
                }
                Ok(decoded)
            }
            Err(Refusal::NeverFits { .. }) => Ok(decoded),
            Err(refusal) => Err(refusal),
        }
    }

    /// A request of which nothing but a dead letter is kept.
    pub(super) fn keep_body(&self, incoming: &Incoming, digest: Digest, undecodable: Undecodable) -> Decoded {
        let kept = if undecodable.too_large {
            &[][..]
        } else {
            self.cut(&incoming.body)
        };
        let letter = DeadLetter {
            stage: Stage::Decode,
            reason: undecodable.reason.clone(),
            detail: undecodable.detail.clone(),
            raw: kept.to_vec(),
            raw_bytes: incoming.body_bytes,
            position: None,
        };
        let request = WriteRequest {
            digest,
            received: 1,
            rows: EncodedRows::new(),
            dead_letters: vec![letter],
            body: incoming.body.clone(),
            source: self.source(incoming),
        };
        Decoded {
            request,
            undecodable: Some(undecodable),
        }
    }

    /// A request that makes the decoder panic: a defect of ours, kept for whoever mends it.
    pub(super) fn keep_panicked(&self, incoming: &Incoming) -> Decoded {
        tracing::error!(
            path = incoming.path,
            body.bytes = incoming.body_bytes,
            "decoding a request panicked; it is kept as a dead letter"
        );
        let undecodable = Undecodable {
            reason: "decoder_panicked".to_owned(),
            detail: "decoding it panicked: a defect of the service".to_owned(),
            too_large: false,
        };
        self.keep_body(incoming, self.digest(incoming), undecodable)
    }

    pub(super) fn letter(&self, reason: &str, detail: &str, raw: &str, position: u32) -> DeadLetter {
        DeadLetter {
            stage: Stage::Decode,
            reason: reason.to_owned(),
            detail: detail.to_owned(),
            raw: self.cut(raw.as_bytes()).to_vec(),
            raw_bytes: u64::try_from(raw.len()).unwrap_or(u64::MAX),
            position: Some(position),
        }
    }

    pub(super) fn cut<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        raw.get(..self.dead_letter_bytes_max).unwrap_or(raw)
    }
}
