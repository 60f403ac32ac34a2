//! A job as the job file that makes it: what `orch inspect` prints and `orch run` reads.
