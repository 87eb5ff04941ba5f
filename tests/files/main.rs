//! Files that no test can execute here: Vector's configurations, the compose file, `deploy/`.
//!
//! Needs no server. Keys, values, files, ports and limits are compared with each other, with `config.default.toml` and with
//! Vector's reference; the VRL programs are compiled and run. What this cannot show is that Vector, Docker, systemd or
//! Kubernetes do what their documents say.

#[cfg(test)]
mod audited;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod hostile_input;
#[cfg(test)]
mod image;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod notices;
#[cfg(test)]
mod options;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod systemd;
mod tidy;
#[cfg(test)]
mod yaml;
