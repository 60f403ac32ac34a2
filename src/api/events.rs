//! `GET /v1/events`: server-sent events, a WebSocket, or a page.
//!
//! A stream holds no queue: it reads on in the state's own record of events as its reader takes
//! them. A reader that falls behind that record is told so and let go; nobody waits for it.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::extract::ws::{close_code, rejection::WebSocketUpgradeRejection};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::context::{Context, INDEX_HEADER, StreamSlot};
use super::error::Problem;
use super::extract::Params;
use super::from_state::event::{Filter, row};
use super::view::event::{EventPage, EventRow};
use super::view::problem::ProblemDetails;
use super::view::query::{ConsistencyChoice, EventsQuery};
use crate::consensus::View;
use crate::limits::{API_PAGE_ROWS, API_PAGE_ROWS_MAX, EVENT_QUEUE_MAX, STREAM_KEEP_ALIVE_MS};
use crate::model::name::{JobId, NodeName};
use crate::state::query::EventsGone;
use crate::state::{EventRecord, State as ClusterState};

/// A quiet stream says this often that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(STREAM_KEEP_ALIVE_MS);
/// A WebSocket whose reader takes nothing for so long is closed.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What happens in the cluster, in order, as server-sent events or over a WebSocket. `?since=`
/// (or the header Last-Event-ID) resumes behind an event without missing or repeating any; an
/// index that is no longer kept is answered with 410 and the oldest that is. With `follow=false`,
/// a page as JSON.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses(
        (status = 200, body = EventPage, content_type = "application/json"),
        (status = 200, body = EventRow, content_type = "text/event-stream"),
        (status = 101, description = "A WebSocket with an EventRow in each message"),
        (status = "4XX", body = ProblemDetails, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn events(
    State(context): State<Context>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let filter = Filter {
        job: query
            .job
            .as_deref()
            .map(str::parse::<JobId>)
            .transpose()
            .map_err(|error| Problem::invalid(format!("?job=: {error}")))?,
        node: query
            .node
            .as_deref()
            .map(str::parse::<NodeName>)
            .transpose()
            .map_err(|error| Problem::invalid(format!("?node=: {error}")))?,
    };
    let since = since(&query, &headers)?;
    if query.follow == Some(false) {
        return page(&context, &filter, since.unwrap_or(0), query.limit, since.is_none()).await;
    }
    if query.limit.is_some() {
        return Err(Problem::bad_request("?limit= goes with ?follow=false"));
    }
    let slot = context.stream_slot()?;
    let views = context.consensus.views();
    let state = views.borrow().state.clone();
    let since = since.unwrap_or_else(|| state.last_event());
    // Told now, while there is a status to tell it with.
    state.events_after(since).map_err(gone)?;
    drop(state);
    let reader = Reader {
        views,
        since,
        filter,
        stop: context.stop.clone(),
        batch: Vec::new().into_iter(),
        _slot: slot,
    };
    match upgrade {
        Ok(upgrade) => Ok(upgrade.on_upgrade(move |socket| over_socket(socket, reader))),
        Err(_) if headers.contains_key("upgrade") => {
            Err(Problem::bad_request("the upgrade can't be made; only a WebSocket is served here"))
        }
        Err(_) => Ok(Sse::new(as_sse(reader))
            .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
            .into_response()),
    }
}

fn since(query: &EventsQuery, headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(header) = headers.get("last-event-id") else { return Ok(query.since) };
    // A browser that reconnects repeats the first request and adds where it was.
    let index = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    index.map(Some).ok_or_else(|| Problem::bad_request("Last-Event-ID must be an event's index"))
}

fn gone(gone: EventsGone) -> Problem {
    let oldest_index = Some(gone.oldest);
    Problem { oldest_index, ..Problem::new(StatusCode::GONE, "events_gone", gone.to_string()) }
}

async fn page(
    context: &Context,
    filter: &Filter,
    since: u64,
    limit: Option<usize>,
    from_oldest: bool,
) -> Result<Response, Problem> {
    let limit = limit.unwrap_or(API_PAGE_ROWS);
    if !(1..=API_PAGE_ROWS_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "?limit={limit} is out of bounds; ask for 1 to {API_PAGE_ROWS_MAX} rows"
        )));
    }
    let view = context.view(ConsistencyChoice::Linearizable).await?;
    let records = match view.state.events_after(since) {
        Err(EventsGone { oldest }) if from_oldest => view.state.events_after(oldest),
        records => records,
    }
    .map_err(gone)?;
    let mut page = EventPage { items: Vec::new(), next_since: since };
    for record in records {
        if page.items.len() == limit {
            break;
        }
        page.next_since = record.index;
        if filter.wants(&record.event) {
            page.items.push(row(&record));
        }
    }
    let headers = [(INDEX_HEADER, HeaderValue::from(view.applied_index))];
    Ok((headers, Json(page)).into_response())
}

/// Where one reader of events is.
struct Reader {
    views: watch::Receiver<View>,
    since: u64,
    filter: Filter,
    stop: CancellationToken,
    batch: std::vec::IntoIter<Arc<EventRecord>>,
    _slot: StreamSlot,
}

/// Why a stream of events ends.
enum End {
    /// The reader fell behind what is kept.
    Behind(EventsGone),
    /// The server stops.
    Stopping,
}

impl End {
    fn problem(&self) -> Problem {
        match self {
            Self::Behind(behind) => gone(*behind),
            Self::Stopping => {
                Problem::unavailable("stopping", "this server is stopping; resume on another")
            }
        }
    }
}

impl Reader {
    async fn next(&mut self) -> Result<EventRow, End> {
        loop {
            for record in self.batch.by_ref() {
                self.since = record.index;
                if self.filter.wants(&record.event) {
                    return Ok(row(&record));
                }
            }
            self.batch = self.wait_for_more().await?.into_iter();
        }
    }

    async fn wait_for_more(&mut self) -> Result<Vec<Arc<EventRecord>>, End> {
        let since = self.since;
        let more = |view: &View| view.state.last_event() > since;
        let state: Arc<ClusterState> = tokio::select! {
            () = self.stop.cancelled() => return Err(End::Stopping),
            found = self.views.wait_for(more) => match found {
                Ok(view) => view.state.clone(),
                Err(_) => return Err(End::Stopping),
            },
        };
        let mut records = state.events_after(since).map_err(End::Behind)?;
        records.truncate(EVENT_QUEUE_MAX);
        Ok(records)
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    // Rows have only texts and numbers: they always encode.
    serde_json::to_string(value).unwrap_or_default()
}

fn as_sse(reader: Reader) -> impl Stream<Item = Result<sse::Event, std::convert::Infallible>> {
    futures::stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(row) => {
                let event = sse::Event::default()
                    .id(row.index.to_string())
                    .event(row.kind.clone())
                    .data(json(&row));
                Some((Ok(event), Some(reader)))
            }
            Err(end) => {
                let data = json(&end.problem().details());
                Some((Ok(sse::Event::default().event("error").data(data)), None))
            }
        }
    })
}

async fn over_socket(mut socket: WebSocket, mut reader: Reader) {
    loop {
        let row = tokio::select! {
            row = reader.next() => row,
            heard = socket.recv() => match heard {
                // Nothing is expected from the reader; pings are answered by the library.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return,
                Some(Ok(_)) => {
                    let reason = Utf8Bytes::from_static("this socket is for reading only");
                    close(&mut socket, close_code::POLICY, reason).await;
                    return;
                }
            },
            () = tokio::time::sleep(KEEP_ALIVE) => {
                if !send(&mut socket, Message::Ping(Default::default())).await {
                    return;
                }
                continue;
            }
        };
        match row {
            Ok(row) => {
                if !send(&mut socket, Message::Text(json(&row).into())).await {
                    return;
                }
            }
            Err(end) => {
                let problem = end.problem();
                if send(&mut socket, Message::Text(json(&problem.details()).into())).await {
                    close(&mut socket, close_code::AWAY, problem.code.into()).await;
                }
                return;
            }
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(tokio::time::timeout(SEND_TIMEOUT, socket.send(message)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: Utf8Bytes) {
    send(socket, Message::Close(Some(CloseFrame { code, reason }))).await;
}
