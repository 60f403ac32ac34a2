//! One request over HTTP/1.1, on a connection of its own.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use orch::net::SharedNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// A server's answer.
#[derive(Debug)]
pub struct Answer {
    /// As 200.
    pub status: u16,
    /// The index in the header `ETag`, if there is one.
    pub etag: Option<u64>,
    /// What follows the head.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// There was no connection: nothing was done.
    NotSent,
    /// It may have been done.
    Unknown,
}

fn invalid() -> io::Error {
    ErrorKind::InvalidData.into()
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(invalid)?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid())?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(invalid)?;
    let header = |wanted: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut found = lines.filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.next().and_then(|(_, value)| value.trim().trim_matches('"').parse::<u64>().ok())
    };
    let (length, etag) = (header("content-length"), header("etag"));
    let body = bytes[end + 4..].to_vec();
    match length {
        Some(length) if (body.len() as u64) < length => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(Answer { status, etag, body }),
    }
}

/// Asks `addr`, and waits for the whole answer, at most for `limit`.
pub async fn ask(
    net: &SharedNet,
    addr: SocketAddr,
    request: (&str, &str),
    body: &[u8],
    limit: Duration,
) -> Result<Answer, Failed> {
    let (method, path) = request;
    let mut stream = match timeout(limit, net.connect(addr.to_string())).await {
        Ok(Ok(stream)) => stream,
        _ => return Err(Failed::NotSent),
    };
    let length = body.len();
    let mut message = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    message.extend_from_slice(body);
    let talk = async {
        stream.write_all(&message).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&answer)
    };
    match timeout(limit, talk).await {
        Ok(Ok(answer)) => Ok(answer),
        _ => Err(Failed::Unknown),
    }
}
