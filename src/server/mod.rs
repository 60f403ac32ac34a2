//! What a server does besides storing: planners while leader, dispatch, timers.
