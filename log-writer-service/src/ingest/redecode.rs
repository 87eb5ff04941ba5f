//! What a dead letter kept, decoded again by the same rules as a request that comes in now.
//!
//! Identity: ids that an event brings stay its own. Others are derived from the digest that was noted for its request and
//! from the event's place in it: what it would have had if it had been usable at once. Times are judged, and absent ones
//! replaced, by when the request came in. An event that had become a row keeps id, time and tenant of that row.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Incoming, Refusal, admission::Admission, decode::Decoder, identity::Origin};
use crate::{
    config::{Aliases, Config},
    elasticsearch::Targets,
    event::{Arrival, InvalidAliases, RawEvent, Timestamp, derive_id},
    timescale::{EncodedRows, RawLetter, WriteRequest},
};

/// Decodes dead letters.
#[derive(Debug)]
pub struct Redecoder {
    decoder: Decoder,
    aliases: Aliases,
    admission: Admission,
    /// With authentication on a body never names its tenant.
    body_names_tenant: bool,
}

impl Redecoder {
    /// By the same settings as the service; `targets` is `None` when events are stored in SQL only.
    ///
    /// # Errors
    /// If an alias list can't be used.
    pub fn new(config: &Config, targets: Option<Targets>) -> Result<Self, InvalidAliases> {
        Ok(Self {
            decoder: Decoder::new(config, targets, None)?,
            aliases: config.events.aliases.clone(),
            admission: Admission::new(config.http.inflight_bytes_max),
            body_names_tenant: !config.auth.enabled,
        })
    }

    /// The letter as a request to be committed in its place.
    ///
    /// # Errors
    /// [`Refusal::NeverFits`] if it takes more memory than all requests may.
    pub fn decode(&self, letter: RawLetter, now: Timestamp) -> Result<WriteRequest, Refusal> {
        let origin = Origin {
            digest: letter.digest,
            counts: true,
            first_position: letter.position.unwrap_or(0),
            arrived: letter.first_at,
            ingested: now,
        };
        let incoming = self.incoming(letter.clone());
        match letter.event {
            Some(event) => Ok(self.row(&letter, event, &incoming, &origin)),
            None => {
                let decoded = self
                    .decoder
                    .decode_from(&incoming, &origin, &mut self.admission.open())?;
                Ok(decoded.request)
            }
        }
    }

    fn incoming(&self, letter: RawLetter) -> Incoming {
        let tenant = letter.tenant.map(Arc::<str>::from);
        Incoming {
            body_bytes: u64::try_from(letter.raw.len()).unwrap_or(u64::MAX),
            body: Bytes::from(letter.raw),
            path: letter.path,
            content_type: letter.content_type,
            // One event of a body was kept as it was after decompression.
            content_encoding: letter.content_encoding.filter(|_| letter.position.is_none()),
            idempotency_key: None,
            // Without a credential's tenant the body may name one of `events.body_tenants`, as it could at first.
            tenant: tenant.filter(|tenant| !self.body_names_tenant || *tenant != self.decoder.default_tenant),
            address: letter.address,
        }
    }

    /// A row that PostgreSQL refused: its columns are read as an event again, its key is kept.
    fn row(
        &self,
        letter: &RawLetter,
        (id, time): (Uuid, Timestamp),
        incoming: &Incoming,
        origin: &Origin,
    ) -> WriteRequest {
        let text = row_as_event(&letter.raw, &self.aliases);
        let arrival = Arrival {
            at: origin.arrived,
            tenant: letter.tenant.as_deref().map(Arc::from),
            wrapper: None,
        };
        let mut rows = EncodedRows::new();
        let mut dead_letters = Vec::new();
        match self.decoder.normaliser.normalise(RawEvent::Object(&text), &arrival) {
            Ok(mut event) => {
                event.own_id = Some(id);
                event.timestamp = time;
                rows.push(&event, origin.ingested, self.decoder.target(&event).as_ref());
                rows.set_ids(0, id, derive_id(Some(time), &origin.digest, origin.first_position));
                rows.set_position(0, origin.first_position);
            }
            Err(unusable) => dead_letters.push(self.decoder.letter(
                unusable.name(),
                &unusable.to_string(),
                &text,
                origin.first_position,
            )),
        }
        WriteRequest {
            digest: origin.digest,
            received: 1,
            rows,
            dead_letters,
            body: incoming.body.clone(),
            source: self.decoder.source(incoming),
        }
    }
}

/// The kept row (columns by name) as an event, its columns under names that are looked for.
fn row_as_event(raw: &[u8], aliases: &Aliases) -> String {
    let Ok(Value::Object(mut columns)) = serde_json::from_slice(raw) else {
        return String::from_utf8_lossy(raw).into_owned();
    };
    let mut event = Map::new();
    for (column, names) in [
        ("level", &aliases.level),
        ("service", &aliases.service),
        ("host", &aliases.host),
        ("message", &aliases.message),
        ("correlation_id", &aliases.correlation_id),
        ("user_id", &aliases.user_id),
        ("trace_id", &aliases.trace_id),
        ("span_id", &aliases.span_id),
        ("tags", &aliases.tags),
        ("error_details", &aliases.error_details),
        ("performance_metrics", &aliases.performance_metrics),
        ("ai_analysis", &aliases.ai_analysis),
    ] {
        if let (Some(value), Some(name)) = (columns.remove(column), names.first()) {
            event.insert(name.clone(), value);
        }
    }
    if let Some(mut fields) = columns.remove("fields") {
        // Our own notes of the first time: kept as `_log_writer.received`.
        if let Some(notes) = fields.as_object_mut().and_then(|fields| fields.remove("_log_writer")) {
            event.insert("_log_writer".to_owned(), notes);
        }
        event.insert("fields".to_owned(), fields);
    }
    Value::Object(event).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::DEFAULT_FILE, event::Digest};

    fn tenant_of(letter_tenant: &str, is_asked: bool) -> Option<Arc<str>> {
        let mut config: Config = toml::from_str(DEFAULT_FILE).unwrap();
        config.auth.enabled = is_asked;
        let letter = RawLetter {
            id: 1,
            attempts: 1,
            digest: Digest([0; 32]),
            position: None,
            event: None,
            tenant: Some(letter_tenant.to_owned()),
            address: None,
            content_type: None,
            content_encoding: None,
            path: "/ingest".to_owned(),
            first_at: Timestamp(0),
            raw: b"{}".to_vec(),
        };
        Redecoder::new(&config, None).unwrap().incoming(letter).tenant
    }

    #[test]
    fn a_body_names_its_tenant_only_where_nobody_is_asked_who_they_are() {
        assert_eq!(tenant_of("default", false), None);
        for (tenant, is_asked) in [("default", true), ("blue", true), ("blue", false)] {
            assert_eq!(tenant_of(tenant, is_asked).as_deref(), Some(tenant), "{is_asked}");
        }
    }
}
