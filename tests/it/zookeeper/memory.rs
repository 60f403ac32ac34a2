//! What a node of the tree takes, as a process tells it that does nothing else.

use crate::support::orch;

/// Bytes beside path and data, with what the allocator adds.
const NODE_BYTES_MAX: f64 = 300.0;

#[test]
fn a_node_takes_little_beside_its_path_and_data() {
    let rows = orch(&["bench", "tree", "--nodes", "100000", "-o", "json"]).ok().json();
    let value = |what: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["what"] == what).unwrap();
        row["value"].as_f64().unwrap()
    };
    // With the four of every server, the topmost, and one above each thousand.
    assert_eq!(value("nodes"), 100_105.0);
    let bytes = value("memory of a node beside them");
    assert!((1.0..=NODE_BYTES_MAX).contains(&bytes), "{rows}");
}
