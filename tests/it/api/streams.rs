//! Logs and exec, with an agent that is made up.

use futures::{SinkExt, StreamExt};
use orch::rpc::v1::session_frame::Frame;
use orch::rpc::v1::session_request::Kind;
use orch::rpc::v1::{
    Exit, FilesAction, LogCursor, LogLine, LogLines, Opened as Connected, SessionError,
    SessionFrame, StdoutEnd,
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Opened, TestApi, WEB, within};

async fn with_web() -> TestApi {
    let api = TestApi::start().await;
    api.node("n1").await;
    api.submit(WEB).await.ok();
    api.plan().await;
    api.all_run().await;
    api
}

fn frame(frame: Frame) -> SessionFrame {
    SessionFrame { frame: Some(frame) }
}

async fn print(opened: &Opened, lines: &[(u64, &str)]) {
    let lines = lines
        .iter()
        .map(|(at, text)| LogLine {
            at: *at,
            stderr: *at % 2 == 1,
            text: text.to_string().into_bytes().into(),
            task: "web".into(),
        })
        .collect();
    opened.feed.send(frame(Frame::Logs(LogLines { lines }))).await.unwrap();
}

async fn end(opened: Opened) {
    opened.feed.send(frame(Frame::Exit(Exit { code: 0 }))).await.unwrap();
}

#[tokio::test]
async fn output_of_copies_is_merged_by_time() {
    let mut api = with_web().await;
    let request = TestApi::request(
        "GET",
        "/v1/jobs/web/logs?tail=5&since=2026-01-01T00:00:00Z",
        &[],
        axum::body::Body::empty(),
    );
    let (response, ()) =
        futures::join!(tower::ServiceExt::oneshot(api.router.clone(), request), async {
            let first = within(api.sessions.recv()).await.unwrap();
            let second = within(api.sessions.recv()).await.unwrap();
            let Some(Kind::Logs(asked)) = &first.request.kind else { panic!("no logs") };
            assert_eq!(
                (asked.tail, asked.since, asked.follow),
                (Some(5), 1_767_225_600_000, false)
            );
            assert_eq!((first.request.node.as_str(), first.request.alloc), ("n1", 1));
            print(&first, &[(1, "a"), (4, "d")]).await;
            print(&second, &[(2, "b"), (3, "c")]).await;
            end(first).await;
            end(second).await;
        });
    let response = response.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    let body = within(axum::body::to_bytes(response.into_body(), usize::MAX)).await.unwrap();
    let lines: Vec<Value> = std::str::from_utf8(&body)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let texts: Vec<&str> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    assert_eq!(lines[0]["at"], "1970-01-01T00:00:00.000000001Z");
    assert_eq!((&lines[0]["stream"], &lines[1]["stream"]), (&json!("stderr"), &json!("stdout")));
    assert_eq!((&lines[1]["index"], &lines[1]["task"]), (&json!(1), &json!("web")));
}

#[tokio::test]
async fn a_followed_job_shows_copies_that_come_later() {
    let mut api = with_web().await;
    let request =
        TestApi::request("GET", "/v1/jobs/web/logs?follow=true", &[], axum::body::Body::empty());
    let response = api.answer(request).await;
    let mut body = response.into_body().into_data_stream();
    let first = within(api.sessions.recv()).await.unwrap();
    let second = within(api.sessions.recv()).await.unwrap();
    print(&first, &[(1, "before")]).await;
    let chunk = within(body.next()).await.unwrap().unwrap();
    assert!(chunk.starts_with(b"{\"at\":\"1970-"), "{chunk:?}");
    api.json("PUT", "/v1/jobs/web/scale", json!({ "replicas": 3 })).await.ok();
    api.plan().await;
    let third = within(api.sessions.recv()).await.unwrap();
    assert_eq!(third.request.alloc, 3);
    print(&third, &[(2, "after")]).await;
    let chunk = within(body.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("\"after\""), "{chunk:?}");
    // The reader goes: so do the sessions.
    drop(body);
    within(async {
        for mut opened in [first, second, third] {
            opened.feed.closed().await;
            assert!(opened.heard.recv().await.is_none());
        }
    })
    .await;
}

#[tokio::test]
async fn followed_output_goes_on_where_it_was_when_an_agent_is_back() {
    let mut api = with_web().await;
    let path = "/v1/jobs/web/logs?follow=true&tail=3&index=0&grep=x&ignore_case=true";
    let request = TestApi::request("GET", path, &[], axum::body::Body::empty());
    let response = api.answer(request).await;
    let mut body = response.into_body().into_data_stream();
    let first = within(api.sessions.recv()).await.unwrap();
    let Some(Kind::Logs(asked)) = &first.request.kind else { panic!("no logs") };
    assert_eq!((asked.tail, asked.grep.as_str(), asked.ignore_case), (Some(3), "x", true));
    assert!(asked.after.is_empty());
    print(&first, &[(4, "out"), (5, "err"), (8, "out")]).await;
    let chunk = within(body.next()).await.unwrap().unwrap();
    assert_eq!(chunk.iter().filter(|byte| **byte == b'\n').count(), 3);
    let error = SessionError { code: "unreachable".into(), message: "n1 went away".into() };
    first.feed.send(frame(Frame::Error(error))).await.unwrap();
    let chunk = within(body.next()).await.unwrap().unwrap();
    let line: Value = serde_json::from_slice(&chunk).unwrap();
    assert!(line["note"].as_str().unwrap().contains("n1 went away"), "{line}");
    assert!(line["error"].is_null(), "{line}");
    let again = within(api.sessions.recv()).await.unwrap();
    let Some(Kind::Logs(asked)) = &again.request.kind else { panic!("no logs") };
    assert_eq!((asked.tail, asked.grep.as_str()), (None, "x"));
    let cursor = LogCursor { task: "web".into(), stdout: 8, stderr: 5 };
    assert_eq!(asked.after, [cursor]);
    print(&again, &[(9, "more")]).await;
    let chunk = within(body.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&chunk).contains("\"more\""), "{chunk:?}");
}

#[tokio::test]
async fn files_go_both_ways_as_streams() {
    let mut api = with_web().await;
    let get = |path: &str| TestApi::request("GET", path, &[], axum::body::Body::empty());
    let router = api.router.clone();
    let (response, ()) = futures::join!(
        tower::ServiceExt::oneshot(router.clone(), get("/v1/allocations/a1/files?path=/etc")),
        async {
            let opened = within(api.sessions.recv()).await.unwrap();
            let Some(Kind::Files(asked)) = &opened.request.kind else { panic!("no files") };
            assert_eq!((asked.path.as_str(), asked.action()), ("/etc", FilesAction::Read));
            opened.feed.send(frame(Frame::Stdout("one".into()))).await.unwrap();
            opened.feed.send(frame(Frame::Stdout("two".into()))).await.unwrap();
            end(opened).await;
        }
    );
    let response = response.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-tar");
    let body = within(axum::body::to_bytes(response.into_body(), usize::MAX)).await.unwrap();
    assert_eq!(body, "onetwo");

    // What breaks off is never whole.
    let (response, ()) = futures::join!(
        tower::ServiceExt::oneshot(router.clone(), get("/v1/allocations/a1/files?path=/etc")),
        async {
            let opened = within(api.sessions.recv()).await.unwrap();
            opened.feed.send(frame(Frame::Stdout("one".into()))).await.unwrap();
        }
    );
    let body = within(axum::body::to_bytes(response.unwrap().into_body(), usize::MAX)).await;
    assert!(body.is_err());

    let put = TestApi::request(
        "PUT",
        "/v1/allocations/a1/files?path=/srv",
        &[("content-type", "application/x-tar")],
        axum::body::Body::from(vec![7; 200_000]),
    );
    let (response, ()) = futures::join!(tower::ServiceExt::oneshot(router.clone(), put), async {
        let mut opened = within(api.sessions.recv()).await.unwrap();
        opened.feed.send(frame(Frame::Opened(Connected {}))).await.unwrap();
        let mut length = 0;
        loop {
            match within(opened.heard.recv()).await.unwrap().frame.unwrap() {
                Frame::Stdin(bytes) => length += bytes.len(),
                Frame::StdinEnd(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(length, 200_000);
        end(opened).await;
    });
    assert_eq!(response.unwrap().status(), 204);
    let refused = SessionError { code: "not_found".into(), message: "there is no /no".into() };
    let (response, ()) = futures::join!(
        tower::ServiceExt::oneshot(router, get("/v1/allocations/a2/files?path=/no&look=true")),
        async {
            let opened = within(api.sessions.recv()).await.unwrap();
            opened.feed.send(frame(Frame::Error(refused))).await.unwrap();
        }
    );
    assert_eq!(response.unwrap().status(), 404);
    api.get("/v1/allocations/a9/files?path=/x").await.problem(404, "not_found");
    api.get("/v1/allocations/a1/files").await.problem(400, "bad_request");
    api.send("PUT", "/v1/allocations/a1/files?path=/x", &[], "x")
        .await
        .problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn what_has_no_output_says_so() {
    let api = TestApi::start().await;
    api.submit(WEB).await.ok();
    api.get("/v1/jobs/web/logs").await.problem(404, "not_found");
    api.get("/v1/jobs/web/logs?task=none").await.problem(404, "not_found");
    api.get("/v1/jobs/none/logs").await.problem(404, "not_found");
    api.get("/v1/allocations/a9/logs").await.problem(404, "not_found");
    api.get("/v1/jobs/web/logs?since=noon").await.problem(400, "bad_request");
    api.get("/v1/jobs/web/logs?tail=9999999").await.problem(400, "bad_request");
}

#[tokio::test]
async fn a_command_runs_both_ways_over_a_socket() {
    let mut api = with_web().await;
    let address = api.serve().await;
    let url = format!(
        "ws://{address}/v1/allocations/a1/exec?command=sh&command=-c&command=cat+x&stdin=true\
         &tty=true&columns=100&rows=30"
    );
    let (mut socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
    let mut opened = within(api.sessions.recv()).await.unwrap();
    let Some(Kind::Exec(asked)) = &opened.request.kind else { panic!("no exec") };
    assert_eq!(asked.command, ["sh", "-c", "cat x"]);
    assert_eq!((asked.tty, asked.stdin, asked.columns, asked.rows), (true, true, 100, 30));
    assert_eq!(opened.request.task, "web");
    for message in [&b"\0hello"[..], b"\x03{\"resize\":{\"columns\":9,\"rows\":8}}", b"\0"] {
        socket.send(Message::Binary(message.into())).await.unwrap();
    }
    let mut heard = Vec::new();
    for _ in 0..3 {
        heard.push(within(opened.heard.recv()).await.unwrap().frame.unwrap());
    }
    assert!(matches!(&heard[0], Frame::Stdin(bytes) if bytes.as_ref() == b"hello"));
    assert!(matches!(&heard[1], Frame::Resize(size) if size.columns == 9 && size.rows == 8));
    assert!(matches!(&heard[2], Frame::StdinEnd(_)));
    opened.feed.send(frame(Frame::Stdout(b"out"[..].into()))).await.unwrap();
    opened.feed.send(frame(Frame::Stderr(b"err"[..].into()))).await.unwrap();
    opened.feed.send(frame(Frame::Exit(Exit { code: 7 }))).await.unwrap();
    let mut messages = Vec::new();
    while let Some(Ok(message)) = within(socket.next()).await {
        if message.is_binary() {
            messages.push(message.into_data().to_vec());
        }
    }
    assert_eq!(messages, [&b"\x01out"[..], b"\x02err", b"\x04{\"code\":7}"]);
}

#[tokio::test]
async fn a_port_is_a_socket_with_two_ends() {
    let mut api = with_web().await;
    let address = api.serve().await;
    let url = format!("ws://{address}/v1/allocations/a1/forward?port=http");
    let connect = tokio_tungstenite::connect_async(url);
    let (connected, mut opened) = futures::join!(within(connect), async {
        let opened = within(api.sessions.recv()).await.unwrap();
        let Some(Kind::Forward(asked)) = &opened.request.kind else { panic!("no port") };
        assert_eq!((asked.port, asked.name.as_str()), (0, "http"));
        opened.feed.send(frame(Frame::Opened(Connected {}))).await.unwrap();
        opened
    });
    let (mut socket, _) = connected.unwrap();
    for message in [&b"\0ping"[..], b"\0"] {
        socket.send(Message::Binary(message.into())).await.unwrap();
    }
    let heard = within(opened.heard.recv()).await.unwrap().frame.unwrap();
    assert!(matches!(&heard, Frame::Stdin(bytes) if bytes.as_ref() == b"ping"), "{heard:?}");
    let heard = within(opened.heard.recv()).await.unwrap().frame.unwrap();
    assert!(matches!(&heard, Frame::StdinEnd(_)), "{heard:?}");
    opened.feed.send(frame(Frame::Stdout(b"pong"[..].into()))).await.unwrap();
    opened.feed.send(frame(Frame::StdoutEnd(StdoutEnd {}))).await.unwrap();
    end(opened).await;
    let mut messages = Vec::new();
    while let Some(Ok(message)) = within(socket.next()).await {
        if message.is_binary() {
            messages.push(message.into_data().to_vec());
        }
    }
    assert_eq!(messages, [&b"\x01pong"[..], b"\x01", b"\x04{\"code\":0}"]);
    for bad in ["0", "70000", "No", ""] {
        api.get(&format!("/v1/allocations/a1/forward?port={bad}"))
            .await
            .problem(400, "bad_request");
    }
}

#[tokio::test]
async fn a_client_that_goes_ends_its_command() {
    let mut api = with_web().await;
    let address = api.serve().await;
    let url = format!("ws://{address}/v1/allocations/a1/exec?command=top");
    let (socket, _) = within(tokio_tungstenite::connect_async(url)).await.unwrap();
    let opened = within(api.sessions.recv()).await.unwrap();
    drop(socket);
    within(opened.feed.closed()).await;
}

#[tokio::test]
async fn a_command_that_can_t_run_is_refused_before_the_socket() {
    let api = with_web().await;
    let address = api.serve().await;
    api.get("/v1/allocations/a1/exec").await.problem(400, "bad_request");
    api.get("/v1/allocations/a1/exec?command=ls&ttty=true").await.problem(400, "bad_request");
    assert_eq!(api.get("/v1/allocations/a1/exec?command=ls").await.status, 426);
    let url = format!("ws://{address}/v1/allocations/a9/exec?command=ls");
    let refused = within(tokio_tungstenite::connect_async(url)).await.unwrap_err();
    assert!(refused.to_string().contains("404"), "{refused}");
    // A web page of another origin is kept out: browsers don't ask before they open a socket.
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let request = axum::http::Request::builder()
        .uri(format!("ws://{address}/v1/allocations/a1/exec?command=ls"))
        .header("host", &address)
        .header("origin", "http://evil.example")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .unwrap();
    let refused = within(tokio_tungstenite::client_async(request, stream)).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
}
