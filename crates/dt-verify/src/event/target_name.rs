//! Project and device in a `targetName`: `projects/<project>/devices/<device>`.

/// Returns the id of the project: the segment after `projects/` at the start; `None` if there is none, or an empty one.
pub fn project(target_name: &str) -> Option<&str> {
    target_name.strip_prefix("projects/")?.split('/').next().filter(|id| !id.is_empty())
}

/// Returns the id of the device: the last segment, if the segment before it is `devices`; otherwise `None`. The ids of emulated
/// devices have three characters more than those of real ones.
pub fn device(target_name: &str) -> Option<&str> {
    let (parent, id) = target_name.rsplit_once('/')?;
    let in_devices = parent == "devices" || parent.ends_with("/devices");
    (in_devices && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_and_device_are_found() {
        let name = "projects/c0md3mm0c7pet3vico8g/devices/emuc1ul5qf2ghkeoq4nj7d0";
        assert_eq!(project(name), Some("c0md3mm0c7pet3vico8g"));
        assert_eq!(device(name), Some("emuc1ul5qf2ghkeoq4nj7d0"));
    }

    #[test]
    fn other_targets_have_no_device() {
        assert_eq!((project("projects/p"), device("projects/p")), (Some("p"), None));
        assert_eq!((project("projects/p/devices/"), device("projects/p/devices/")), (Some("p"), None));
        assert_eq!((project("projects//devices/d"), device("projects//devices/d")), (None, Some("d")));
        for name in ["", "/", "projects", "projects/", "p/projects/x", "devices"] {
            assert_eq!((project(name), device(name)), (None, None), "{name}");
        }
        assert_eq!(device("projects/p/devices/d/parts/x"), None);
    }
}
