//! The questions as tools of the Model Context Protocol, for agents: over HTTP (`/mcp`) and over standard input and output.
//!
//! The only file that knows the SDK, whose interface changes often. All tools but `annotate_log` read; who may do what is
//! decided for each call, by whoever takes the connection.

use std::sync::Arc;

use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Extensions, Implementation,
        ListResourcesResult, ListToolsResult, PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse,
        ReadResourceResult, Resource, ResourceContents, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{AskError, Asker, Asking, CATALOGUE, TENANT};
use crate::timescale::Question;

const RUN_SQL: &str = "run_sql";
const ANNOTATE_LOG: &str = "annotate_log";
const TABLES: &str = "log-writer://tables";
const FUNCTIONS: &str = "log-writer://functions";
const INSTRUCTIONS: &str = "Log events in PostgreSQL with TimescaleDB, one row each in application_logs. Begin with \
    get_error_stats or search_logs; follow a request with trace_logs, look around an event with get_log_context. Answers \
    say which store found the rows and whether there were more. The resources describe tables and functions for run_sql.";

/// What came with a call.
pub type CallExtensions = Extensions;

/// Tells who asks from what came with a call.
pub type AskingOf = fn(&Extensions) -> Asking;

/// The tools of one connection.
#[derive(Debug, Clone)]
pub struct Tools {
    asker: Asker,
    asking_of: AskingOf,
}

/// The service behind `/mcp`. Stateless: any replica answers any request.
pub type OverHttp = StreamableHttpService<Tools, NeverSessionManager>;

impl Tools {
    /// Over this asker.
    #[must_use]
    pub fn new(asker: Asker, asking_of: AskingOf) -> Self {
        Self { asker, asking_of }
    }

    /// As a service for HTTP that answers under these names of hosts, and no page of a browser.
    #[must_use]
    pub fn over_http(self, hosts: &[String]) -> OverHttp {
        let settings = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_allowed_hosts(hosts.to_vec())
            .enforce_origin_validation();
        StreamableHttpService::new(move || Ok(self.clone()), Arc::default(), settings)
    }

    /// Serves standard input and output until the input ends.
    ///
    /// # Errors
    /// If the other side does not speak the protocol, or goes away in the middle.
    pub async fn over_stdio(self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let running = self.serve(rmcp::transport::stdio()).await?;
        running.waiting().await?;
        Ok(())
    }

    fn tools(&self) -> Vec<Tool> {
        let read_only = || ToolAnnotations::new().read_only(true).open_world(false);
        let mut tools: Vec<Tool> = CATALOGUE
            .iter()
            .map(|entry| Tool::new(entry.name, entry.about, entry.schema()).with_annotations(read_only()))
            .collect();
        let schema = json!({
            "type": "object",
            "properties": {
                "id": {"type": "string", "format": "uuid", "description": "The event's id."},
                "timestamp": {"type": "string", "format": "date-time", "description": "The event's time, as it was given."},
                "analysis": {"type": "object", "description": "Members to add to ai_analysis, in place of those of the same name."},
                "tenant": TENANT.schema(),
            },
            "required": ["id", "timestamp", "analysis"],
            "additionalProperties": false,
        });
        let about = "Adds the members of a JSON object to what an analysis found about an event (ai_analysis).";
        let hints = ToolAnnotations::new()
            .read_only(false)
            .destructive(false)
            .open_world(false);
        tools.push(Tool::new(ANNOTATE_LOG, about, object(schema)).with_annotations(hints));
        if self.asker.takes_sql() {
            let schema = json!({
                "type": "object",
                "properties": {"sql": {"type": "string", "description": "One statement that gives rows."}},
                "required": ["sql"],
                "additionalProperties": false,
            });
            let about = "Runs one SELECT (or WITH, VALUES) as a role that may only read; rows and time are limited. Give a \
                         range of \"timestamp\".";
            tools.push(Tool::new(RUN_SQL, about, object(schema)).with_annotations(read_only()));
        }
        tools
    }

    /// The answer as JSON text; `None`: there is no such tool.
    async fn call(
        &self,
        name: &str,
        arguments: Map<String, Value>,
        asking: &Asking,
    ) -> Option<Result<String, AskError>> {
        if name == RUN_SQL && self.asker.takes_sql() {
            return Some(match arguments.get("sql").and_then(Value::as_str) {
                Some(sql) => self
                    .asker
                    .run_sql(sql, asking)
                    .await
                    .and_then(|answer| as_json(&answer)),
                None => Err(AskError::Unclear("`sql` is missing: run_sql needs it".to_owned())),
            });
        }
        if name == ANNOTATE_LOG {
            if !asking.may_annotate {
                let refused = "the credential does not allow this: it needs the scope annotate";
                return Some(Err(AskError::Refused(refused.to_owned())));
            }
            return Some(
                self.asker
                    .annotate(arguments, asking)
                    .await
                    .and_then(|analysis| as_json(&analysis)),
            );
        }
        let entry = CATALOGUE.iter().find(|entry| entry.name == name)?;
        Some(match entry.read_all(&arguments) {
            Ok(parameters) => {
                let answer = self.asker.ask(entry, parameters, asking).await;
                answer.and_then(|answer| as_json(&answer))
            }
            Err(wrong) => Err(AskError::Unclear(wrong)),
        })
    }
}

fn as_json(answer: &impl Serialize) -> Result<String, AskError> {
    serde_json::to_string(answer).map_err(|error| AskError::Unavailable(format!("the answer is no JSON: {error}")))
}

fn object(schema: Value) -> Map<String, Value> {
    match schema {
        Value::Object(members) => members,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("log-writer-service", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let asking = (self.asking_of)(&context.extensions);
        let arguments = request.arguments.unwrap_or_default();
        let Some(answer) = self.call(&request.name, arguments, &asking).await else {
            return Err(ErrorData::invalid_params(
                format!("there is no tool `{}`", request.name),
                None,
            ));
        };
        let result = match answer {
            Ok(text) => CallToolResult::success(vec![ContentBlock::text(text)]),
            // The agent may ask otherwise: it is told in an answer, as the protocol wants it.
            Err(refused) => CallToolResult::error(vec![ContentBlock::text(refused.to_string())]),
        };
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resource = |uri: &str, name: &str, about: &str| {
            Resource::new(uri, name)
                .with_description(about)
                .with_mime_type("application/json")
        };
        Ok(ListResourcesResult::with_all_items(vec![
            resource(
                TABLES,
                "tables",
                "Tables and views with their columns and what they mean",
            ),
            resource(
                FUNCTIONS,
                "functions",
                "SQL functions with their parameters and what they answer",
            ),
        ]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let question = match request.uri.as_str() {
            TABLES => Question::DESCRIBE_TABLES,
            FUNCTIONS => Question::DESCRIBE_FUNCTIONS,
            other => {
                return Err(ErrorData::resource_not_found(
                    format!("there is no resource `{other}`"),
                    None,
                ));
            }
        };
        let rows = self.asker.describe(question).await;
        let text = rows
            .map_err(|error| error.to_string())
            .and_then(|rows| serde_json::to_string(&rows).map_err(|error| error.to_string()))
            .map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }
}
