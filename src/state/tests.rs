use super::*;

#[test]
fn the_cluster_is_founded_once() {
    let mut state = State::default();
    for (index, cluster_id) in [(1, 7), (2, 8)] {
        let stamp = Stamp { index, at: Timestamp(index) };
        let applied = state.apply(stamp, &Command::FoundCluster { cluster_id }.into());
        assert_eq!(applied.reply, Ok(Reply::Done));
        assert_eq!(state.cluster_id(), 7);
    }
}
