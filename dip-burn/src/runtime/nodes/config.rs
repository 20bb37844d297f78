//! The nodes of a run, as given on the command line.

use std::time::Duration;

use crate::runtime::group::GroupError;

/// Longest patience and silence.
const MAX_WAIT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most nodes; each keeps two connections to each other.
const MAX_NODES: usize = 1024;

/// The nodes of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodesConfig {
    /// Address of each node, as `host:port`; the same list on all nodes. Ports are opened for IPv4.
    pub addresses: Vec<String>,
    /// The number of this node in that list, from 0.
    pub number: usize,
    /// How long to wait for the others at the start.
    pub patience: Duration,
    /// How long a node may be silent before the run ends; nodes send at least ten heartbeats in this time.
    pub silence: Duration,
}

impl NodesConfig {
    /// Waits for the others for ten minutes at the start, and for a silent node for one minute.
    pub fn new(addresses: Vec<String>, number: usize) -> Self {
        let (patience, silence) = (Duration::from_secs(600), Duration::from_secs(60));
        Self { addresses, number, patience, silence }
    }

    /// Checks the settings, and returns the port of this node.
    pub(super) fn validate(&self) -> Result<u16, GroupError> {
        let start = |field, value, limit: &str, remedy| {
            Err(GroupError::Start { field, value, limit: limit.into(), remedy })
        };
        let shown = self.addresses.join(",");
        if !(2..=MAX_NODES).contains(&self.addresses.len()) {
            let limit = "must name 2 to 1024 nodes";
            return start("--nodes", shown, limit, "give host:port of every node, with commas");
        }
        let mut ports = Vec::new();
        for (i, address) in self.addresses.iter().enumerate() {
            let port = address.rsplit_once(':').filter(|(host, _)| is_host(host));
            match port.and_then(|(_, port)| port.parse::<u16>().ok()).filter(|&port| port > 0) {
                Some(port) => ports.push(port),
                None => {
                    let limit = "must be host:port, with a name or an IPv4 address";
                    return start("--nodes", address.clone(), limit, "as in 10.0.0.1:29500");
                }
            }
            if self.addresses[..i].contains(address) {
                let limit = "names this node twice";
                return start("--nodes", address.clone(), limit, "give each node its own address");
            }
        }
        let waits = [("silence", self.silence), ("patience", self.patience)];
        if let Some((field, wait)) = waits.into_iter().find(|(field, wait)| {
            *wait > MAX_WAIT || (*field == "silence" && *wait < Duration::from_millis(100))
        }) {
            let limit = "must be at most 30 days, and the silence at least 0.1 s";
            let remedy = "give seconds or minutes";
            return start(field, format!("{} s", wait.as_secs_f64()), limit, remedy);
        }
        match ports.get(self.number) {
            Some(&port) => Ok(port),
            None => {
                let limit = format!("must be 0 to {}", ports.len() - 1);
                let remedy = "give this node's place in --nodes";
                start("--node", self.number.to_string(), &limit, remedy)
            }
        }
    }
}

/// True if a text may be a host name or an IPv4 address. No node could be reached at anything else.
fn is_host(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-._".contains(c))
}
