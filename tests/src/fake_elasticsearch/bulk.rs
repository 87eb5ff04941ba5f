//! `_bulk` of the fake: scripted faults, else `create` with 201 and 409, `delete`, and guarded `index`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::{
    Behaviour, BulkSeen, Item, ItemFault, State, Stored,
    api::{error, template_for},
    lock,
    server::Reply,
};

pub(super) async fn answer(state: &Arc<Mutex<State>>, path: &str, body: &[u8]) -> Reply {
    let behaviour = {
        let mut state = lock(state);
        state.requests.push(format!("POST {path}"));
        if state.body_bytes_max.is_some_and(|max| body.len() > max) {
            return Reply::TooLarge;
        }
        let items = match parse(path, body) {
            Ok(items) => items,
            Err(reason) => return Reply::Whole(400, error(400, "illegal_argument_exception", &reason)),
        };
        // Repairs are not what the script is about.
        if items.iter().all(|item| item.operation == "delete") {
            return delete(&mut state, &items);
        }
        let scripted = state.script.pop_front().or_else(|| state.always.clone());
        let faulty = scripted.is_some();
        state.bulks.push(BulkSeen {
            path: path.to_owned(),
            bytes: body.len(),
            items,
            faulty,
        });
        scripted.unwrap_or(Behaviour::Apply)
    };
    let items = parse(path, body).expect("parsed before");
    let apply = |fault: &dyn Fn(usize, &Item) -> Option<ItemFault>| apply_all(&mut lock(state), &items, fault);
    match behaviour {
        Behaviour::Apply => Reply::Whole(200, apply(&no_fault)),
        Behaviour::Reject(413, _) => Reply::TooLarge,
        Behaviour::Reject(status, kind) => Reply::Whole(status, error(status, kind, "scripted")),
        Behaviour::RejectIf(culprit) => {
            if items.iter().any(|item| culprit(item)) {
                Reply::Whole(400, error(400, "illegal_argument_exception", "scripted"))
            } else {
                Reply::Whole(200, apply(&no_fault))
            }
        }
        Behaviour::Cut => Reply::Nothing,
        Behaviour::CutIf(culprit) => {
            if items.iter().any(|item| culprit(item)) {
                Reply::Nothing
            } else {
                Reply::Whole(200, apply(&no_fault))
            }
        }
        Behaviour::ApplyThenCut => {
            apply(&no_fault);
            Reply::Nothing
        }
        Behaviour::Truncate => Reply::Half(apply(&no_fault)),
        Behaviour::WrongItemCount => {
            let mut answer = apply(&no_fault);
            answer["items"].as_array_mut().expect("items").pop();
            Reply::Whole(200, answer)
        }
        Behaviour::Hold(gate) => {
            gate.passed().await;
            Reply::Whole(200, apply(&no_fault))
        }
        Behaviour::PartialFailure(fault) => Reply::Whole(200, apply(&|position, item| fault(position, item))),
    }
}

fn delete(state: &mut State, items: &[Item]) -> Reply {
    if let Some(left) = state.deletions_refused.checked_sub(1) {
        state.deletions_refused = left;
        return Reply::Whole(429, error(429, "es_rejected_execution_exception", "scripted"));
    }
    Reply::Whole(200, apply_all(state, items, &no_fault))
}

fn no_fault(_position: usize, _item: &Item) -> Option<ItemFault> {
    None
}

fn parse(path: &str, body: &[u8]) -> Result<Vec<Item>, String> {
    if body.last() != Some(&b'\n') {
        return Err("The bulk request must be terminated by a newline [\\n]".to_owned());
    }
    let default_target = path
        .trim_start_matches('/')
        .split("_bulk")
        .next()
        .unwrap_or_default()
        .trim_end_matches('/');
    let mut lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let mut items = Vec::new();
    while let Some(action) = lines.next() {
        let action: Value = serde_json::from_slice(action).map_err(|error| format!("Malformed action: {error}"))?;
        let (operation, meta) = action
            .as_object()
            .and_then(|object| object.iter().next())
            .ok_or("Malformed action/metadata line")?;
        let source = if operation == "delete" {
            Value::Null
        } else {
            let Some(line) = lines.next() else { break };
            serde_json::from_slice(line).unwrap_or(Value::Null)
        };
        items.push(Item {
            operation: operation.clone(),
            target: meta["_index"].as_str().unwrap_or(default_target).to_owned(),
            id: meta["_id"].as_str().unwrap_or_default().to_owned(),
            source,
        });
    }
    Ok(items)
}

fn apply_all(state: &mut State, items: &[Item], fault: &dyn Fn(usize, &Item) -> Option<ItemFault>) -> Value {
    let results: Vec<Value> = items
        .iter()
        .enumerate()
        .map(|(position, item)| {
            let outcome = match fault(position, item) {
                Some(fault) => Err(fault),
                None => apply(state, item),
            };
            let result = match outcome {
                Ok((status, index)) => json!({
                    "_index": index, "_id": item.id, "_version": 1, "status": status,
                    "result": if item.operation == "delete" { "deleted" } else { "created" },
                    "_seq_no": state.sequence, "_primary_term": 1,
                }),
                Err(fault) => json!({
                    "_index": shown_index(state, item, &fault), "_id": item.id, "status": fault.status,
                    "error": { "type": fault.error_type, "reason": fault.reason },
                }),
            };
            json!({ item.operation.clone(): result })
        })
        .collect();
    let failed = results.iter().any(|result| {
        result
            .as_object()
            .is_some_and(|one| one.values().any(|inner| !inner["error"].is_null()))
    });
    json!({ "errors": failed, "took": 1, "items": results })
}

/// Faults found in the index show its name, those found before it the stream's.
fn shown_index(state: &State, item: &Item, fault: &ItemFault) -> String {
    let in_the_index = ["document_parsing_exception", "version_conflict_engine_exception"].contains(&fault.error_type);
    let write_index = state.streams.get(&item.target).and_then(|indices| indices.last());
    write_index
        .filter(|_| in_the_index)
        .map_or_else(|| item.target.clone(), |index| index.name.clone())
}

/// Status and index of an applied item.
fn apply(state: &mut State, item: &Item) -> Result<(u16, String), ItemFault> {
    match item.operation.as_str() {
        "create" => create(state, item),
        "delete" => {
            let mut indices = state.streams.values_mut().flatten();
            let index = indices
                .find(|index| index.name == item.target)
                .ok_or_else(|| ItemFault::new(404, "index_not_found_exception", "no such index"))?;
            let status = if index.documents.remove(&item.id).is_some() {
                200
            } else {
                404
            };
            Ok((status, item.target.clone()))
        }
        _ => Err(ItemFault::new(
            400,
            "illegal_argument_exception",
            "only write ops with an op_type of create are allowed in data streams",
        )),
    }
}

fn create(state: &mut State, item: &Item) -> Result<(u16, String), ItemFault> {
    if !state.streams.contains_key(&item.target) {
        if template_for(state, &item.target).is_none() {
            let reason = format!(
                "no such index [{}] and the index creation request requires a data stream, but no matching index \
                 template with data stream template was found for it",
                item.target
            );
            return Err(ItemFault::new(404, "index_not_found_exception", &reason));
        }
        state.roll_over(&item.target);
    }
    let sequence = state.next_sequence();
    let index = state
        .streams
        .get_mut(&item.target)
        .and_then(|indices| indices.last_mut())
        .expect("a stream has a write index");
    if item.source["@timestamp"].is_null() {
        return Err(ItemFault::new(
            400,
            "document_parsing_exception",
            "data stream timestamp field [@timestamp] is missing",
        ));
    }
    if index.documents.contains_key(&item.id) {
        let reason = format!(
            "[{}]: version conflict, document already exists (current version [1])",
            item.id
        );
        return Err(ItemFault::new(409, "version_conflict_engine_exception", &reason));
    }
    index.documents.insert(
        item.id.clone(),
        Stored {
            source: item.source.clone(),
            sequence,
        },
    );
    Ok((201, index.name.clone()))
}
