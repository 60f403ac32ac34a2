//! One check: what is asked, and the answer in words.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::Target;
use crate::agent::runtime::{ExecOrder, ExecOutput};
use crate::limits::{CHECK_ANSWER_BYTES_MAX, CHECK_MESSAGE_BYTES_MAX, CHECK_OUTPUT_BYTES_MAX};
use crate::model::job::{HealthCheck, Probe};
use crate::model::name::PortName;

/// Bytes of a status line that is waited for.
const STATUS_LINE_MAX: usize = 64;
/// How long a connection to a published port must be kept to count.
const PROXY_WAIT: Duration = Duration::from_millis(200);
/// Between lines that are shown on one.
const SEPARATOR: &str = " / ";
/// Characters of a command that are shown.
const COMMAND_SHOWN: usize = 80;

/// Asks once.
///
/// # Errors
/// What is wrong, as people read it, on one line; also when there is no answer in time.
pub(super) async fn ask(target: &Target, check: &HealthCheck) -> Result<(), String> {
    let limit = check.timeout.as_duration();
    let asked = asked(&check.probe);
    let outcome =
        match tokio::time::timeout(limit, answer(target, &check.probe, &asked, limit / 2)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("{asked}: no answer within {}", check.timeout)),
        };
    outcome.map_err(|text| one_line(&text, CHECK_MESSAGE_BYTES_MAX))
}

/// What is asked, in words.
fn asked(probe: &Probe) -> String {
    match probe {
        Probe::Http { path, .. } => format!("GET {path}"),
        Probe::Tcp { port } => format!("port {port}"),
        Probe::Command { command } => {
            let words = command.join(" ");
            match words.char_indices().nth(COMMAND_SHOWN) {
                Some((end, _)) => format!("{}…", &words[..end]),
                None => words,
            }
        }
        Probe::Grpc { service, .. } if service.is_empty() => "gRPC health of the server".to_owned(),
        Probe::Grpc { service, .. } => format!("gRPC health of {service}"),
    }
}

async fn answer(
    target: &Target,
    probe: &Probe,
    asked: &str,
    limit: Duration,
) -> Result<(), String> {
    match probe {
        Probe::Http { path, port } => {
            let address = address(target, port)?;
            match http_status(address, path).await {
                Ok(200..=399) => Ok(()),
                Ok(status) => Err(format!("{asked} answered {status}")),
                Err(why) => Err(format!("{asked}: {why}")),
            }
        }
        Probe::Tcp { port } => {
            let address = address(target, port)?;
            let stream =
                TcpStream::connect(address).await.map_err(|error| connection(&error, address))?;
            let published = target.runtime.as_ref().is_some_and(|of| of.word() == "docker");
            if published { held(&stream, address, limit.min(PROXY_WAIT)).await } else { Ok(()) }
        }
        Probe::Command { command } => run(target, command, asked).await,
        Probe::Grpc { service, port } => {
            let address = address(target, port)?;
            grpc(address, service).await.map_err(|why| format!("{asked}{why}"))
        }
    }
}

fn address(target: &Target, port: &PortName) -> Result<SocketAddr, String> {
    let number = target.ports.get(port).ok_or_else(|| format!("there is no port {port}"))?;
    let ip = match target.bind_address {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(ip, *number))
}

/// Whether a connection is kept. The engine's proxy takes every one for a published port, and
/// closes it at once when nothing listens in the container.
async fn held(stream: &TcpStream, address: SocketAddr, wait: Duration) -> Result<(), String> {
    match tokio::time::timeout(wait, stream.peek(&mut [0])).await {
        Ok(Ok(0)) => {
            Err(format!("connection closed on port {}: nothing listens behind it", address.port()))
        }
        Ok(Err(error)) => Err(connection(&error, address)),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// What went wrong with a connection.
fn connection(error: &io::Error, address: SocketAddr) -> String {
    let what = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "connection reset".to_owned(),
        _ => error.to_string(),
    };
    format!("{what} on port {}", address.port())
}

/// The status of a GET. Only the status line is read: a check must stay cheap however much the
/// page holds.
async fn http_status(address: SocketAddr, path: &str) -> Result<u16, String> {
    let wrong = |error: io::Error| connection(&error, address);
    let mut stream = TcpStream::connect(address).await.map_err(wrong)?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: orch\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.map_err(wrong)?;
    let mut line = Vec::with_capacity(STATUS_LINE_MAX);
    while !line.contains(&b'\n') && line.len() < STATUS_LINE_MAX {
        let mut piece = [0; STATUS_LINE_MAX];
        let read = stream.read(&mut piece).await.map_err(wrong)?;
        if read == 0 {
            break;
        }
        line.extend_from_slice(&piece[..read]);
    }
    let text = String::from_utf8_lossy(&line);
    let mut words = text.split_whitespace();
    match (words.next(), words.next().and_then(|status| status.parse().ok())) {
        (Some(version), Some(status)) if version.starts_with("HTTP/") => Ok(status),
        (None, _) => {
            Err(format!("port {} closed the connection without an answer", address.port()))
        }
        _ => Err(format!("what port {} answers is not HTTP", address.port())),
    }
}

/// The gRPC health checking protocol, over HTTP/2 without TLS. What is wrong follows the name of
/// what is asked.
async fn grpc(address: SocketAddr, service: &str) -> Result<(), String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!(": {error}"))?
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| match cause_of(&error) {
        Some(cause) => format!(": {}", connection(cause, address)),
        None => format!(": {error}"),
    })?;
    let mut client = HealthClient::new(channel).max_decoding_message_size(CHECK_ANSWER_BYTES_MAX);
    let request = HealthCheckRequest { service: service.to_owned() };
    match client.check(request).await {
        Ok(answer) => match answer.into_inner().status() {
            ServingStatus::Serving => Ok(()),
            other => Err(format!(" is {}", other.as_str_name())),
        },
        // The connection's own trouble, not an answer.
        Err(status) if std::error::Error::source(&status).is_some() => {
            Err(match cause_of(&status) {
                Some(cause) => format!(": {}", connection(cause, address)),
                None => format!(": what port {} answers is not gRPC", address.port()),
            })
        }
        Err(status) => Err(match status.code() {
            Code::NotFound => ": the server knows no such service".to_owned(),
            Code::Unimplemented => ": the server has no health service".to_owned(),
            _ if status.message().is_empty() => format!(": {}", status.code()),
            code => format!(": {code}: {}", status.message()),
        }),
    }
}

/// The socket's own error, below what is around it.
fn cause_of<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref::<io::Error>() {
            return Some(cause);
        }
        next = error.source();
    }
    None
}

async fn run(target: &Target, command: &[String], asked: &str) -> Result<(), String> {
    let runtime = target.runtime.as_ref().ok_or("its runtime does not answer")?;
    let order = ExecOrder { command: command.to_vec(), ..ExecOrder::default() };
    // Held to the end: dropping it would end the command.
    let (_input, input_end) = mpsc::channel(1);
    let (output, mut pieces) = mpsc::channel(8);
    let listen = async {
        let mut end = Output::default();
        while let Some(piece) = pieces.recv().await {
            end.take(piece);
        }
        end
    };
    let run = runtime.exec(&target.key, &target.handle, order, input_end, output);
    let (code, end) = futures::future::join(run, listen).await;
    match code {
        Ok(0) => Ok(()),
        Ok(code) => {
            let tail = end.tail();
            let colon = if tail.is_empty() { "" } else { ": " };
            Err(format!("{asked} ended with exit code {code}{colon}{tail}"))
        }
        Err(error) => Err(format!("{asked}: {error}")),
    }
}

/// The end of what a command printed. Which of the two came first is not known.
#[derive(Default)]
struct Output {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl Output {
    fn take(&mut self, piece: ExecOutput) {
        let (end, piece) = match piece {
            ExecOutput::Stdout(piece) => (&mut self.out, piece),
            ExecOutput::Stderr(piece) => (&mut self.err, piece),
        };
        end.extend_from_slice(&piece);
        let from = end.len().saturating_sub(CHECK_OUTPUT_BYTES_MAX);
        end.drain(..from);
    }

    /// Its last lines on one, those of standard error last.
    fn tail(&self) -> String {
        let mut lines = Vec::new();
        let mut room = CHECK_OUTPUT_BYTES_MAX;
        // Who prints much on both has said the more important on standard error.
        for output in [&self.err, &self.out] {
            let text = String::from_utf8_lossy(output);
            for line in text.lines().rev().map(plain).filter(|line| !line.is_empty()) {
                let needed = line.len() + SEPARATOR.len();
                if lines.is_empty() {
                    // Of the last line at least the end.
                    let from = line.ceil_char_boundary(line.len().saturating_sub(room));
                    lines.push(line[from..].to_owned());
                } else if needed <= room {
                    lines.push(line);
                } else {
                    break;
                }
                room = room.saturating_sub(needed);
            }
        }
        lines.reverse();
        lines.join(SEPARATOR)
    }
}

/// Without control characters.
fn plain(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text.trim().to_owned()
}

/// On one line, and not longer than `most` bytes.
fn one_line(text: &str, most: usize) -> String {
    let text = plain(text);
    text[..text.floor_char_boundary(most)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_a_command_printed_is_on_one_line() {
        let tail = |out: &str, err: &str| {
            let mut output = Output::default();
            for piece in out.as_bytes().chunks(100) {
                output.take(ExecOutput::Stdout(piece.to_vec().into()));
            }
            output.take(ExecOutput::Stderr(err.as_bytes().to_vec().into()));
            output.tail()
        };
        assert_eq!(tail("", ""), "");
        assert_eq!(tail("one\n\n two\x1b[0m\n", ""), "one / two [0m");
        assert_eq!(tail("one\n", "two\n"), "one / two");
        let long = "x".repeat(200);
        assert_eq!(tail(&format!("{long}\n{long}\nthe end\n"), ""), format!("{long} / the end"));
        assert_eq!(tail(&format!("first\n{long}\n"), &long), long, "what fits whole");
        let end = tail(&"é".repeat(CHECK_OUTPUT_BYTES_MAX), "");
        assert!(end.len() <= CHECK_OUTPUT_BYTES_MAX && end.ends_with('é'), "{end}");
        let noise: String = (0..1000).map(|i| format!("noise {i}\n")).collect();
        let end = tail(&noise, "no database\n");
        assert!(end.len() <= CHECK_OUTPUT_BYTES_MAX, "{end}");
        assert!(end.ends_with("noise 998 / noise 999 / no database"), "{end}");
    }

    #[test]
    fn what_is_asked_is_named_shortly() {
        let command = vec!["/check".to_owned(), "y".repeat(200)];
        let text = asked(&Probe::Command { command });
        assert_eq!(text.chars().count(), COMMAND_SHOWN + 1);
        let port: PortName = "rpc".parse().unwrap();
        let grpc = |service: &str| Probe::Grpc { service: service.to_owned(), port: port.clone() };
        assert_eq!(asked(&grpc("")), "gRPC health of the server");
        assert_eq!(asked(&grpc("shop.Cart")), "gRPC health of shop.Cart");
    }
}
