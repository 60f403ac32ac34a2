//! The document, the table for people, and the routes that are there: the same.

use std::collections::BTreeSet;

use super::TestApi;

fn documented() -> BTreeSet<(String, String)> {
    let document = serde_json::to_value(orch::api::openapi()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    operations.collect()
}

/// The table at the head of the room.
fn tabled() -> BTreeSet<(String, String)> {
    let text = include_str!("../../../src/api/mod.rs");
    let rows = text.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let mut routes = BTreeSet::new();
    for row in rows {
        let first = row.split(" | ").next().unwrap();
        for route in first.split(", ") {
            let (method, path) = route.trim_matches('`').split_once(' ').unwrap();
            routes.insert((method.to_owned(), path.to_owned()));
        }
    }
    routes
}

#[test]
fn the_document_and_the_table_name_the_same_routes() {
    assert!(documented().len() > 30);
    assert_eq!(documented(), tabled());
}

#[test]
fn routes_are_registered_with_their_description_alone() {
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/api")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(".route("), "{} goes around the document", path.display());
        }
    }
}

#[tokio::test]
async fn every_documented_route_is_there_and_no_other_method() {
    let api = TestApi::start().await;
    let routes = documented();
    for (method, path) in &routes {
        let filled =
            path.replace("{name}", "nothing").replace("{id}", "a999").replace("{path}", "no/such");
        let query = match path {
            path if path.ends_with("/events") => "?follow=false",
            // A stream: a position that has not come yet is answered at once.
            path if path.ends_with("/watch") => "?since=999999",
            _ => "",
        };
        let reply = api.send(method, &format!("{filled}{query}"), &[], "").await;
        if !reply.status.is_success() {
            let code = reply.value()["code"].as_str().unwrap().to_owned();
            assert!(
                !["unknown_route", "method_not_allowed", "internal"].contains(&code.as_str()),
                "{method} {path}: {}",
                reply.text()
            );
        }
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if !routes.contains(&(other.to_owned(), path.clone())) {
                let reply = api.send(other, &filled, &[], "").await;
                reply.problem(405, "method_not_allowed");
            }
        }
    }
    api.get("/v1/nothing").await.problem(404, "unknown_route");
    api.get("/v2/jobs").await.problem(404, "unknown_route");
}

#[tokio::test]
async fn the_document_is_served_and_whole() {
    let api = TestApi::start().await;
    let document = api.get("/v1/openapi.json").await.ok().value();
    assert_eq!(document["info"]["title"], "orch");
    let text = document.to_string();
    // Every reference leads somewhere.
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is nowhere");
    }
    assert!(schemas.contains_key("JobStatus") && schemas.contains_key("ProblemDetails"));
    // Names that clients of many languages generate functions from: once each.
    let ids: Vec<&str> = text
        .split("\"operationId\":\"")
        .skip(1)
        .map(|part| part.split('"').next().unwrap())
        .collect();
    assert_eq!(ids.len(), documented().len());
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
}
