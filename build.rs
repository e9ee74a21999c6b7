//! Build script, for two things: it finds the descriptors of Envoy's protobuf messages inside the envoy-types package and
//! hands them to `xds::json`, so that any resource can be printed as, and read from, the JSON that Envoy reads; and it
//! generates what sync agents say to each other for `sync::peer::wire`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

const PACKAGE: &str = "envoy-types";
const DESCRIPTORS: &str = "src/generated/types.bin";

/// Where our own messages stand, and the one file of them.
const PROTO: &str = "proto";
const SYNC: &str = "causeway/sync/v1/sync.proto";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=Cargo.lock");
    if let Err(problem) = run() {
        println!("cargo::error=find the protobuf descriptors of {PACKAGE}: {problem}");
    }
    println!("cargo::rerun-if-changed={PROTO}/{SYNC}");
    if let Err(problem) = generate() {
        println!("cargo::error=generate code for {PROTO}/{SYNC}: {problem}");
    }
}

/// Client, server and messages of the peer service. Without tonic's own transport: connections are made and served by
/// `sync::peer`, whose TLS names peers by URI. Bytes are shared, since values and bodies are the bulk of what is sent.
fn generate() -> Result<(), String> {
    let descriptors = protox::compile([SYNC], [PROTO]).map_err(|error| error.to_string())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .skip_debug(["causeway.sync.v1.ForwardRequest", "causeway.sync.v1.ForwardReply"])
        .compile_fds(descriptors)
        .map_err(|error| error.to_string())
}

fn run() -> Result<(), String> {
    let source = package_folder()?.join(DESCRIPTORS);
    let out =
        PathBuf::from(env::var("OUT_DIR").map_err(|e| format!("OUT_DIR: {e}"))?).join("envoy-types.bin");
    let bytes = fs::read(&source).map_err(|e| {
        format!(
            "read {}: {e}; this version of {PACKAGE} no longer carries its descriptors there",
            source.display()
        )
    })?;
    fs::write(&out, bytes).map_err(|e| format!("write {}: {e}", out.display()))
}

/// The folder of the package, as cargo itself tells it: a registry, a vendored folder and a patched path alike.
fn package_folder() -> Result<PathBuf, String> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let root = env::var("CARGO_MANIFEST_DIR").map_err(|e| format!("CARGO_MANIFEST_DIR: {e}"))?;
    let target = env::var("TARGET").map_err(|e| format!("TARGET: {e}"))?;
    // Without the filter cargo wants the packages of every platform, which a build does not download.
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--offline", "--filter-platform", &target])
        .current_dir(root)
        .output()
        .map_err(|e| format!("run cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("read cargo metadata: {e}"))?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata lists no packages")?;
    let manifest = packages
        .iter()
        .find(|package| package["name"] == PACKAGE)
        .and_then(|package| package["manifest_path"].as_str())
        .ok_or_else(|| format!("cargo metadata does not list {PACKAGE}"))?;
    Path::new(manifest).parent().map(Path::to_path_buf).ok_or_else(|| format!("odd manifest path {manifest}"))
}
