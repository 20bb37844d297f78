//! The cluster: devices, links, and the efficiency factors of the cost model.

use serde::{Deserialize, Serialize};

use crate::spec::error::{FieldError, SpecError};
use crate::spec::strict;
use crate::spec::units::Bytes;

/// Largest factor by which a device may be slower than its data sheet.
const MAX_FACTOR: f64 = 1e6;
const REMEDY: &str = "take the figure from the data sheet or from `dip calibrate`";

/// A homogeneous cluster of accelerators (or CPU workers).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClusterSpec {
    /// Name in reports and plans.
    pub name: String,
    /// The devices, which are all equal.
    pub device: DeviceSpec,
    /// The links between devices.
    pub links: LinkSpec,
    /// Number of devices in a node.
    pub devices_per_node: u32,
    /// Number of nodes.
    pub nodes: u32,
    /// Efficiency factors, fitted by `dip calibrate` or from the data sheet.
    #[serde(default)]
    pub factors: Factors,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct DeviceSpec {
    /// Peak arithmetic in the training precision, in FLOP/s.
    pub flops_per_s: f64,
    /// Memory of the device.
    pub memory_bytes: Bytes,
    /// Memory bandwidth, in bytes/s.
    pub memory_bytes_per_s: f64,
    /// Bytes of one value in the training precision: 2 for bf16 (the default), 4 for f32.
    #[serde(default = "default_element_bytes")]
    pub element_bytes: u32,
}

const fn default_element_bytes() -> u32 {
    2
}

/// Bandwidth in bytes/s and latency in seconds of each kind of link, one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct LinkSpec {
    /// Between two devices of one node.
    pub intra_node_bytes_per_s: f64,
    /// Between two devices of different nodes, per device.
    pub inter_node_bytes_per_s: f64,
    /// Between a device and its host.
    pub host_bytes_per_s: f64,
    /// Start-up time of a message.
    #[serde(default)]
    pub latency_s: f64,
}

/// Efficiency factors of the cost model: `latency = max(flop * N / F, memory * N / B, network * N / B)`, at least 1 each.
///
/// The arithmetic of an operator of `n` FLOP is also slowed by `1 + saturation_flop / n`, because small operators do not fill
/// a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Factors {
    /// Slow-down of matrix products against the peak.
    pub matmul: f64,
    /// Slow-down of attention against the peak.
    pub attention: f64,
    /// Slow-down of memory-bound operators against the memory bandwidth.
    pub memory: f64,
    /// The same for the first `cache_bytes` of an operator, which are still in cache from the previous operator.
    pub cached: f64,
    /// Size of the caches, in bytes; 0 to ignore them.
    pub cache_bytes: u64,
    /// Further slow-down of norms, whose unfused kernels move memory several times.
    pub norm: f64,
    /// Slow-down of activation functions against moving their bytes at the memory bandwidth.
    pub activation: f64,
    /// Slow-down of transfers against the link bandwidth.
    pub network: f64,
    /// FLOP of an operator that runs at half speed.
    pub saturation_flop: f64,
    /// Fixed cost of launching one operator, in seconds.
    pub launch_s: f64,
}

impl Default for Factors {
    fn default() -> Self {
        Self {
            matmul: 1.0,
            attention: 1.0,
            memory: 1.0,
            cached: 1.0,
            cache_bytes: 0,
            norm: 1.0,
            activation: 1.0,
            network: 1.0,
            saturation_flop: 0.0,
            launch_s: 0.0,
        }
    }
}

impl ClusterSpec {
    /// Reads a cluster from TOML and validates it.
    ///
    /// # Errors
    /// [`SpecError`] names the field, its value, the limit and the remedy.
    pub fn from_toml(text: &str) -> Result<Self, SpecError> {
        let spec: Self = strict::from_toml(text)?;
        spec.validate()?;
        Ok(spec)
    }

    /// Writes TOML that [`ClusterSpec::from_toml`] reads.
    ///
    /// # Errors
    /// [`SpecError::Syntax`] if a figure has no TOML form, such as a memory of 2^63 bytes.
    pub fn to_toml(&self) -> Result<String, SpecError> {
        toml::to_string(self).map_err(|e| SpecError::Syntax(e.to_string()))
    }

    /// Number of devices in the cluster.
    pub fn devices(&self) -> u64 {
        u64::from(self.devices_per_node) * u64::from(self.nodes)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`FieldError`] for the first field outside its limit.
    pub fn validate(&self) -> Result<(), FieldError> {
        let Self { device, links, factors, .. } = self;
        for (path, value) in [
            ("device.flops_per_s", device.flops_per_s),
            ("device.memory_bytes", device.memory_bytes.0 as f64),
            ("device.memory_bytes_per_s", device.memory_bytes_per_s),
            ("device.element_bytes", f64::from(device.element_bytes)),
            ("links.intra_node_bytes_per_s", links.intra_node_bytes_per_s),
            ("links.inter_node_bytes_per_s", links.inter_node_bytes_per_s),
            ("links.host_bytes_per_s", links.host_bytes_per_s),
            ("devices_per_node", f64::from(self.devices_per_node)),
            ("nodes", f64::from(self.nodes)),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return Err(FieldError::new(path, value, "finite, above 0", REMEDY));
            }
        }
        for (path, value) in [
            ("factors.matmul", factors.matmul),
            ("factors.attention", factors.attention),
            ("factors.memory", factors.memory),
            ("factors.cached", factors.cached),
            ("factors.norm", factors.norm),
            ("factors.activation", factors.activation),
            ("factors.network", factors.network),
        ] {
            if !(value > 0.0 && value <= MAX_FACTOR) {
                let limit = format!("above 0, at most {MAX_FACTOR}");
                return Err(FieldError::new(path, value, limit, REMEDY));
            }
        }
        for (path, value) in [
            ("links.latency_s", links.latency_s),
            ("factors.saturation_flop", factors.saturation_flop),
            ("factors.launch_s", factors.launch_s),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(FieldError::new(path, value, "finite, at least 0", REMEDY));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: &str = r#"
name = "pair"
devices_per_node = 8
nodes = 2
[device]
flops_per_s = 989e12
memory_bytes = 85899345920
memory_bytes_per_s = 3.35e12
[links]
intra_node_bytes_per_s = 200e9
inter_node_bytes_per_s = 25e9
host_bytes_per_s = 50e9
"#;

    #[test]
    fn absent_factors_are_those_of_the_data_sheet() {
        let cluster = ClusterSpec::from_toml(CLUSTER).unwrap();
        assert_eq!((cluster.devices(), cluster.factors), (16, Factors::default()));
        assert_eq!((cluster.device.memory_bytes, cluster.links.latency_s), (Bytes(80 << 30), 0.0));
    }

    #[test]
    fn a_cluster_survives_its_toml_form() {
        let mut cluster = ClusterSpec::from_toml(CLUSTER).unwrap();
        cluster.factors = Factors { matmul: 1.0 / 3.0, launch_s: 1e-7, ..Factors::default() };
        assert_eq!(ClusterSpec::from_toml(&cluster.to_toml().unwrap()).unwrap(), cluster);
    }

    #[test]
    fn a_field_outside_its_limit_is_named() {
        for (from, to, named) in [
            ("989e12", "0.0", "device.flops_per_s is 0, but must be finite, above 0"),
            ("3.35e12", "nan", "device.memory_bytes_per_s is NaN"),
            ("85899345920", "0", "device.memory_bytes is 0"),
            ("200e9", "inf", "links.intra_node_bytes_per_s is inf"),
            ("nodes = 2", "nodes = 0", "nodes is 0"),
            (
                "50e9",
                "50e9\nlatency_s = -1.0",
                "links.latency_s is -1, but must be finite, at least 0",
            ),
            ("50e9", "50e9\n[factors]\nmatmul = 0.0", "factors.matmul is 0"),
            ("50e9", "50e9\n[factors]\nmatmull = 1.0", "unknown field `matmull`"),
        ] {
            let error = ClusterSpec::from_toml(&CLUSTER.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(named), "{to}: {error}");
        }
    }
}
