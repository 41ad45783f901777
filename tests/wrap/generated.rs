//! The generated file is what its source gives.

use std::{env, fs, path::Path};

use tower::BoxError;

/// Generates the client and server anew. `MAINSTAY_BLESS=1` writes them over the committed file.
#[test]
fn the_committed_code_is_what_the_proto_file_gives() -> Result<(), BoxError> {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrap/greeter.rs");
    let out = env::temp_dir().join(format!("mainstay-greeter-{}", std::process::id()));
    fs::create_dir_all(&out)?;
    let source = protox::compile(["tests/wrap/greeter.proto"], ["tests/wrap"])?;
    tonic_prost_build::configure().build_transport(false).out_dir(&out).compile_fds(source)?;
    let generated = fs::read_to_string(out.join("greeter.rs"))?;
    fs::remove_dir_all(&out)?;
    if env::var_os("MAINSTAY_BLESS").is_some() {
        fs::write(&committed, &generated)?;
    }
    // Not `assert_eq!`: nobody wants to read the two of them side by side.
    assert!(
        fs::read_to_string(&committed)? == generated,
        "tests/wrap/greeter.rs is out of date: run this test with MAINSTAY_BLESS=1"
    );
    Ok(())
}
