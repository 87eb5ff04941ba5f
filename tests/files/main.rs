//! Files that no test can execute here: Vector's configurations, the compose file, `deploy/`.
//!
//! Needs no server. Keys, values, files, ports and limits are compared with each other and with Vector's reference; the VRL
//! programs are compiled and run.

mod programs;
