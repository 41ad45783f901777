//! What the fuzz targets run.

/// Reads `input`, a name and a line after it the data, in every encoding, and writes what it read.
pub fn instances(input: &[u8]) {
    super::encoding::fuzz(input);
}

/// Reads `input` as every answer of a ZooKeeper server.
#[cfg(feature = "zookeeper")]
pub fn zookeeper(input: &[u8]) {
    super::zookeeper::fuzz(input);
}
