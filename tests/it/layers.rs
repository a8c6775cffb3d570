//! The import direction: the protocol does no I/O, sockets know no SMTP, files know no sockets.

use std::path::Path;

fn sources(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push((
                path.display().to_string(),
                std::fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

#[test]
fn imports_point_down() {
    let rules: &[(&str, &[&str])] = &[
        (
            "/src/smtp/",
            &[
                "std::fs",
                "std::thread",
                "TcpStream",
                "SystemTime",
                "Instant",
                "crate::net",
                "crate::deliver",
                "crate::directory",
                "crate::conn",
                "crate::server",
            ],
        ),
        (
            "/src/net/",
            &[
                "crate::smtp",
                "crate::deliver",
                "crate::conn",
                "crate::server",
            ],
        ),
        (
            "/src/deliver/",
            &["crate::net", "std::net", "crate::conn", "crate::server"],
        ),
        (
            "/src/directory",
            &["crate::net", "std::net", "crate::conn", "crate::server"],
        ),
    ];
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut all);
    for (folder, forbidden) in rules {
        let files: Vec<_> = all.iter().filter(|(p, _)| p.contains(folder)).collect();
        assert!(!files.is_empty(), "{folder} is gone");
        for (path, text) in files {
            for name in *forbidden {
                assert!(!text.contains(name), "{path} names {name}");
            }
        }
    }
}
