//! What is left on a node that is being drained, and why it does not move.

use serde_json::json;

use super::TestApi;
use super::aloud::ready;

async fn left(api: &TestApi, node: &str) -> Vec<String> {
    let status = api.get(&format!("/v1/nodes/{node}")).await.ok().value();
    let left = status["drain"]["left"].as_array().unwrap_or_else(|| panic!("{status}"));
    left.iter().map(|left| left["message"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn on_the_last_node_nothing_can_move() {
    let api = TestApi::start().await;
    api.node("n1").await;
    api.submit("job: web\nreplicas: 2\nimage: a:1\nupdate: { min_healthy: 0s }\n").await.ok();
    api.settle(|_| Some(ready())).await;
    let ask = json!({ "deadline": "1h" });
    api.json("POST", "/v1/nodes/n1/drain", ask).await.ok();
    api.settle(|_| Some(ready())).await;
    assert_eq!(
        left(&api, "n1").await,
        ["web.0 can't move: there is no other node", "web.1 can't move: there is no other node"]
    );
    let status = api.get("/v1/nodes/n1").await.ok().value();
    assert_eq!(
        (&status["state"], &status["drain"]["overdue"]),
        (&json!("draining"), &json!(false))
    );
    assert!(status["drain"]["left"].as_array().unwrap().iter().all(|left| left["moves"] == false));

    // Another node takes them, one at a time.
    api.node("n2").await;
    let waiting = left(&api, "n1").await;
    assert!(
        waiting.contains(&"web.1 waits for its turn: one moves at a time".to_owned()),
        "{waiting:?}"
    );
    api.settle(|_| Some(ready())).await;
    assert_eq!(left(&api, "n1").await, [""; 0]);
    assert!(api.state().allocs().filter(|a| a.wanted()).all(|a| a.node.as_str() == "n2"));
}

#[tokio::test]
async fn each_copy_that_stays_says_why() {
    let api = TestApi::start().await;
    api.node("n1").await;
    for file in [
        "job: db\nreplicas: 1\nimage: a:1\nvolumes: [\"pg:/data\"]\n",
        "job: large\nreplicas: 1\nimage: a:1\nresources: { memory: 5Gi }\n",
        "job: picky\nreplicas: 1\nimage: a:1\nplacement: { require: [\"node.name == n1\"] }\n",
        "job: report\nimage: a:1\n",
        "job: agentd\nper: node\nimage: a:1\n",
    ] {
        api.submit(file).await.ok();
    }
    api.settle(|_| Some(ready())).await;
    api.node("n2").await;
    api.submit("job: filler\nreplicas: 1\nimage: a:1\nresources: { memory: 5Gi }\n").await.ok();
    api.settle(|_| Some(ready())).await;
    let ask = json!({ "deadline": "1h" });
    api.json("POST", "/v1/nodes/n1/drain", ask).await.ok();
    api.settle(|_| Some(ready())).await;
    let mut said = left(&api, "n1").await;
    said.sort();
    assert_eq!(
        said,
        [
            "agentd.0 goes last, when nothing else is left",
            "batch job report.0 is left to end until the deadline",
            "db.0 stays: its data (volume pg) is on n1",
            "large.0 can't move: no other node has memory left",
            "picky.0 can't move: no other node takes it (1 node: constraint node.name == n1)",
        ]
    );
}
