//! Where the distributions put the UEFI firmware.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// Firmware files for QEMU's two flash units.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ovmf {
    /// Code, read-only.
    pub code: PathBuf,
    /// Variables, a template: the guest's changes are thrown away.
    pub vars: PathBuf,
}

/// Debian and Ubuntu, Fedora, Arch, in this order.
const PLACES: [(&str, &str); 4] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2/x64/OVMF_VARS.4m.fd",
    ),
];

impl Default for Ovmf {
    /// Where Debian has it, whether it is there or not.
    fn default() -> Self {
        let (code, vars) = PLACES[0];
        Self {
            code: code.into(),
            vars: vars.into(),
        }
    }
}

impl Ovmf {
    /// The files named by `TAILFOLD_OVMF_CODE` and `TAILFOLD_OVMF_VARS`, or else
    /// those of the distribution.
    ///
    /// # Errors
    /// [`Error::NoFirmware`].
    pub fn find() -> Result<Self, Error> {
        let named = |name| std::env::var_os(name).map(PathBuf::from);
        match (named("TAILFOLD_OVMF_CODE"), named("TAILFOLD_OVMF_VARS")) {
            (Some(code), Some(vars)) => Self::first(&[(&code, &vars)]),
            (None, None) => {
                Self::first(&PLACES.map(|(code, vars)| (Path::new(code), Path::new(vars))))
            }
            _ => Err(Error::Usage(
                "TAILFOLD_OVMF_CODE and TAILFOLD_OVMF_VARS belong together: set both or none"
                    .to_owned(),
            )),
        }
    }

    fn first(places: &[(&Path, &Path)]) -> Result<Self, Error> {
        places
            .iter()
            .find(|(code, vars)| code.is_file() && vars.is_file())
            .map(|(code, vars)| Self {
                code: (*code).to_owned(),
                vars: (*vars).to_owned(),
            })
            .ok_or_else(|| Error::NoFirmware {
                looked: places.iter().map(|(code, _)| (*code).to_owned()).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Ovmf;

    #[test]
    fn takes_the_first_place_that_has_both_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a-code", "b-code", "b-vars"] {
            std::fs::write(path(name), "").unwrap();
        }
        let places = [
            (path("a-code"), path("a-vars")),
            (path("b-code"), path("b-vars")),
        ];
        let places: Vec<_> = places
            .iter()
            .map(|(c, v)| (c.as_path(), v.as_path()))
            .collect();
        assert_eq!(Ovmf::first(&places).unwrap().code, path("b-code"));
        let error = Ovmf::first(&places[..1]).unwrap_err();
        assert_eq!(error.status(), 9);
        assert!(error.to_string().contains("a-code"), "{error}");
        assert!(error.to_string().contains("package ovmf"), "{error}");
    }
}
