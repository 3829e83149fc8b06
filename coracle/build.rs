//! What the linker is asked for.

fn main() {
    println!("cargo:rerun-if-changed=unwind.ld");
    if std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu") {
        // Relocations are packed (DT_RELR; glibc 2.36, binutils 2.38): some 3 MB less of a binary that is position-independent.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    // A release ends at a panic (`panic = "abort"`), so nothing in it unwinds: its unwind tables, a tenth of the binary, are left out. (What panics do is not told
    // to build scripts, the root of the profile is.)
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{folder}/unwind.ld");
    }
}
