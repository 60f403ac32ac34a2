//! What handlers take from a request, each refusing with problem details.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use super::error::Problem;
use super::view::problem::FieldProblem;
use crate::limits::{
    API_BODY_BYTES_MAX, API_BODY_DRAIN_BYTES, API_BODY_WAIT_MS, IDEMPOTENCY_KEY_CHARS_MAX,
};
use crate::model::problem::nearest;

/// Query parameters; unknown and repeated ones are refused.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + IntoParams> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = pairs(parts)?;
        let known = names::<T>();
        for (i, (key, _)) in pairs.iter().enumerate() {
            check_known(key, &known)?;
            if pairs[..i].iter().any(|(other, _)| other == key) {
                return Err(Problem::bad_request(format!("?{key}= is given twice")));
            }
        }
        let Query(value) = Query::try_from_uri(&parts.uri).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_else(|| error.to_string());
            Problem::bad_request(format!("a query parameter is wrong: {cause}"))
        })?;
        Ok(Self(value))
    }
}

/// The query's parameters, in the order written.
pub(super) fn pairs(parts: &Parts) -> Result<Vec<(String, String)>, Problem> {
    Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
        .map(|Query(pairs)| pairs)
        .map_err(|error| Problem::bad_request(format!("the query can't be read: {error}")))
}

/// The names of a route's query parameters.
pub(super) fn names<T: IntoParams>() -> Vec<String> {
    T::into_params(|| None).into_iter().map(|parameter| parameter.name).collect()
}

/// Refuses a parameter that the route has not.
pub(super) fn check_known(key: &str, known: &[String]) -> Result<(), Problem> {
    if known.iter().any(|name| name == key) {
        return Ok(());
    }
    let list = known.join(", ");
    let hint = match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near}? It has {list}"),
        None if known.is_empty() => "it has none".to_owned(),
        None => format!("it has {list}"),
    };
    Err(Problem::bad_request(format!("this route has no query parameter {key:?}; {hint}")))
}

/// No query parameters at all.
#[derive(Debug, Default, serde::Deserialize, IntoParams)]
pub(super) struct NoParams {}

/// The path's only parameter, as a name or an id.
#[derive(Debug)]
pub(super) struct Segment<T>(pub(super) T);

impl<S: Send + Sync, T: FromStr<Err: Display>> FromRequestParts<S> for Segment<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        text.parse()
            .map(Self)
            .map_err(|error: T::Err| Problem::invalid(format!("in the path: {error}")))
    }
}

/// The header `Idempotency-Key`.
#[derive(Debug)]
pub(super) struct IdempotencyKey(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else { return Ok(Self(None)) };
        let key = value.to_str().unwrap_or_default();
        let fine = (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())
            && key.bytes().all(|b| b.is_ascii_graphic());
        if !fine {
            return Err(Problem::bad_request(format!(
                "the Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_CHARS_MAX} printable ASCII \
                 characters without spaces"
            )));
        }
        Ok(Self(Some(key.to_owned())))
    }
}

/// Refuses the header `Idempotency-Key`, for writes that are no commands to the state: nobody
/// could keep the promise that it asks for.
#[derive(Debug)]
pub(super) struct NoIdempotencyKey;

impl<S: Send + Sync> FromRequestParts<S> for NoIdempotencyKey {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if parts.headers.contains_key("idempotency-key") {
            return Err(Problem::bad_request(
                "this route takes no Idempotency-Key: what it does can't be remembered under one; \
                 leave the header out, and look before you repeat the request",
            ));
        }
        Ok(Self)
    }
}

/// The whole body, within bounds.
#[derive(Debug)]
pub(super) struct WholeBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for WholeBody {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let patience = Duration::from_millis(API_BODY_WAIT_MS);
        let body = tokio::time::timeout(patience, read_whole(request.into_body())).await;
        body.map(|body| body.map(Self)).unwrap_or_else(|_| {
            Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "bad_request",
                format!("the body did not arrive within {} s", patience.as_secs()),
            ))
        })
    }
}

async fn read_whole(body: Body) -> Result<Bytes, Problem> {
    let mut stream = body.into_data_stream();
    let mut whole = Vec::new();
    let mut length = 0_usize;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes
            .map_err(|error| Problem::bad_request(format!("the body did not arrive: {error}")))?;
        length += bytes.len();
        if length <= API_BODY_BYTES_MAX {
            whole.extend_from_slice(&bytes);
        } else {
            // Who is cut off while sending may never read the answer.
            whole = Vec::new();
            if length > API_BODY_DRAIN_BYTES {
                break;
            }
        }
    }
    if length > API_BODY_BYTES_MAX {
        return Err(Problem::too_large(format!(
            "the body is larger than {API_BODY_BYTES_MAX} bytes, the most that is taken"
        )));
    }
    Ok(whole.into())
}

/// The body's media type, without parameters, in lower case.
pub(super) fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let essence = value.split(';').next().unwrap_or_default().trim();
    Some(essence.to_ascii_lowercase()).filter(|essence| !essence.is_empty())
}

/// A body of a type that the route does not read.
pub(super) fn unsupported(got: Option<&str>, wanted: &str) -> Problem {
    let got = got.map_or_else(|| "no content-type".to_owned(), |got| format!("{got:?}"));
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("the body has {got}; send it as {wanted}"),
    )
}

/// A JSON body; unknown fields are refused with their place.
///
/// The content-type must say so: a web page of another origin can't send it without asking first.
#[derive(Debug)]
pub(super) struct JsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        if media_type.as_deref() != Some("application/json") {
            return Err(unsupported(media_type.as_deref(), "application/json"));
        }
        let WholeBody(body) = WholeBody::from_request(request, state).await?;
        parse_json(&body).map(Self)
    }
}

/// As [`JsonBody`], or the default if there is no body and no content-type.
#[derive(Debug)]
pub(super) struct OptionalJsonBody<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media_type = media_type(request.headers());
        if media_type.as_deref().is_some_and(|kind| kind != "application/json") {
            return Err(unsupported(media_type.as_deref(), "application/json"));
        }
        let WholeBody(body) = WholeBody::from_request(request, state).await?;
        match media_type {
            None if body.is_empty() => Ok(Self(T::default())),
            None => Err(unsupported(None, "application/json")),
            Some(_) => parse_json(&body).map(Self),
        }
    }
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { field };
        json_problem(field, error.inner())
    })?;
    reader.end().map_err(|error| json_problem(String::new(), &error))?;
    Ok(value)
}

fn json_problem(field: String, error: &serde_json::Error) -> Problem {
    let message = helpful(&error.to_string());
    let problem = FieldProblem {
        line: u32::try_from(error.line()).unwrap_or(u32::MAX),
        column: u32::try_from(error.column()).unwrap_or(u32::MAX),
        field,
        message: message.clone(),
    };
    Problem::of_input(format!("the body is not what this route takes: {message}"), vec![problem])
}

/// Adds the nearest known name to serde's message about an unknown one.
fn helpful(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field")
        && let Some(wrong) = words.next()
        && let Some(near) = nearest(wrong, words)
    {
        return format!("{message}; did you mean `{near}`?");
    }
    message.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::view::job::ScaleRequest;

    #[test]
    fn an_unknown_field_names_the_nearest_known_and_its_place() {
        let problem = parse_json::<ScaleRequest>(b"{\n  \"replica\": 3}").unwrap_err();
        assert_eq!(problem.code, "invalid");
        assert_eq!((problem.problems[0].line, problem.problems[0].field.as_str()), (2, "replica"));
        assert!(problem.detail.contains("did you mean `replicas`?"), "{}", problem.detail);
    }

    #[test]
    fn bytes_behind_the_value_are_refused() {
        assert!(parse_json::<ScaleRequest>(b"{\"replicas\":3} {}").is_err());
        assert_eq!(parse_json::<ScaleRequest>(b"{\"replicas\":3}").unwrap().replicas, 3);
    }

    #[test]
    fn an_unknown_parameter_names_the_nearest_known() {
        let known = ["project".to_owned(), "limit".to_owned()];
        let problem = check_known("porject", &known).unwrap_err();
        assert!(problem.detail.contains("did you mean project?"), "{}", problem.detail);
        assert!(check_known("limit", &known).is_ok());
    }
}
