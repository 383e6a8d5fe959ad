//! Makes `TAILFOLD_LAYOUT` a `cfg`: the encoding of the kernel's own struct pages, and
//! their size, as `mask-64`. src/page/encoding/ knows the names; a wrong one is an error there.

fn main() {
    println!("cargo::rerun-if-env-changed=TAILFOLD_LAYOUT");
    println!("cargo::rustc-check-cfg=cfg(encoding, values(any()))");
    println!("cargo::rustc-check-cfg=cfg(page_size, values(any()))");
    let layout = std::env::var("TAILFOLD_LAYOUT").unwrap_or_default();
    let layout = if layout.is_empty() {
        "mask-64"
    } else {
        &layout
    };
    let Some((encoding, size)) = layout.rsplit_once('-') else {
        panic!("TAILFOLD_LAYOUT={layout}: want an encoding and a size, as in mask-64");
    };
    println!("cargo::rustc-cfg=encoding=\"{encoding}\"");
    println!("cargo::rustc-cfg=page_size=\"{size}\"");
}
