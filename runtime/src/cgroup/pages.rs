//! Huge pages (the kernel's hugetlb controller), which are counted apart from other memory.

use super::Trees;
use std::{collections::BTreeMap, fs, io, path::Path};

/// Sizes of huge pages that this machine has, bytes.
pub fn sizes() -> Vec<u64> {
    let size =
        |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?.checked_mul(1024);
    fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten().filter_map(size).collect()
}

/// A size as the kernel names it in the files of its controller, and the OCI runtime specification after it: `64KB`, `2MB`, `1GB`.
pub fn name(size: u64) -> String {
    match size {
        size if size >= 1 << 30 => format!("{}GB", size >> 30),
        size if size >= 1 << 20 => format!("{}MB", size >> 20),
        size => format!("{}KB", size >> 10),
    }
}

impl Trees {
    /// The sizes that groups can be limited in: none where the kernel does not count huge pages by group.
    pub fn page_sizes(&self) -> Vec<u64> {
        let counted = match self {
            Self::V1(trees) => trees.iter().any(|tree| tree.ends_with("hugetlb")),
            Self::V2(root) => fs::read_to_string(root.join("cgroup.controllers"))
                .is_ok_and(|list| list.split_whitespace().any(|controller| controller == "hugetlb")),
        };
        if counted { sizes() } else { Vec::new() }
    }

    /// Limits a group, as kubelet does: what is not asked for cannot be had.
    pub(super) fn limit_pages(&self, group: &Path, limits: &BTreeMap<u64, u64>) -> io::Result<()> {
        for size in self.page_sizes() {
            let (name, limit) = (name(size), limits.get(&size).copied().unwrap_or(0));
            match self {
                Self::V1(_) => self.set(group, &format!("hugetlb.{name}.limit_in_bytes"), limit)?,
                Self::V2(_) => {
                    self.set(group, &format!("hugetlb.{name}.max"), limit)?;
                    self.set(group, &format!("hugetlb.{name}.rsvd.max"), limit)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_named_as_by_the_kernel() {
        assert_eq!([64 << 10, 2 << 20, 32 << 20, 1 << 30].map(name), ["64KB", "2MB", "32MB", "1GB"]);
    }
}
