//! What is shown of states that the planner and obedient agents bring about.
