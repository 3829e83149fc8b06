//! A release ends at a panic (`panic = "abort"`), so nothing in it unwinds: its unwind tables, a tenth of the binary, are left out.

fn main() {
    println!("cargo:rerun-if-changed=unwind.ld");
    if std::env::var("CARGO_CFG_PANIC").as_deref() == Ok("abort") {
        let folder = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{folder}/unwind.ld");
    }
}
