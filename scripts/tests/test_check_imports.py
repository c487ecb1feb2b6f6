"""check-imports finds each broken rule in a small made-up workspace, and nothing in a sound one."""

import importlib.machinery
import importlib.util
import tempfile
import unittest
from pathlib import Path

SCRIPT = Path(__file__).resolve().parent.parent / "check-imports"
LOADER = importlib.machinery.SourceFileLoader("check_imports", str(SCRIPT))
SPEC = importlib.util.spec_from_loader("check_imports", LOADER)
check_imports = importlib.util.module_from_spec(SPEC)
LOADER.exec_module(check_imports)


def workspace(files):
    """The problems found in a workspace made of `files`, over the smallest sound one."""
    sound = {
        "Cargo.toml": '[package]\nname = "corelog"\n[dependencies]\nrt.workspace = true\n',
        "rt/Cargo.toml": '[package]\nname = "rt"\n',
        "engine/Cargo.toml": '[package]\nname = "engine"\n[dependencies]\nrt.workspace = true\n',
        "net/Cargo.toml": '[package]\nname = "net"\n[dependencies]\nrt.workspace = true\n',
        "coord/Cargo.toml": '[package]\nname = "coord"\n[dependencies]\nengine.workspace = true\nnet.workspace = true\n',
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, text in {**sound, **files}.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return check_imports.check(Path(folder))


CASES = [
    ("sound", {}, None),
    ("manifest", {"rt/Cargo.toml": '[package]\nname = "rt"\n[dependencies]\nnet = { path = "../net" }\n'}, "rt -> net"),
    ("dev-dependency", {"net/Cargo.toml": '[package]\nname = "net"\n[dev-dependencies]\nengine.workspace = true\n'}, "net -> engine"),
    ("target table", {"rt/Cargo.toml": '[package]\nname = "rt"\n[target."cfg(loom)".dependencies]\nengine.workspace = true\n'}, "rt -> engine"),
    ("renamed", {"rt/Cargo.toml": '[package]\nname = "rt"\n[dependencies]\nstore = { package = "engine", path = "../engine" }\n'}, "rt -> engine"),
    ("unknown crate", {"extra/Cargo.toml": '[package]\nname = "extra"\n'}, "no place"),
    ("use", {"engine/src/log.rs": "use net::wire::Reader;\n"}, "engine uses net"),
    ("pub use", {"engine/src/log.rs": "pub(crate) use coord::raft;\n"}, "engine uses coord"),
    ("local module", {"engine/src/log.rs": "mod net;\nuse net::wire::Reader;\n"}, None),
    ("comment", {"engine/src/log.rs": "//! use net::wire\n/* use net::wire; */\nconst A: &str = \"\nuse net::wire;\";\n"}, None),
    ("coord may use ids", {"coord/src/raft.rs": "use engine::ids::Offset;\nuse engine::batch;\n"}, None),
    ("coord may not use the log", {"coord/src/raft.rs": "use engine::log::Log;\n"}, "engine::log"),
    ("coord, in braces", {"coord/src/raft.rs": "use engine::{ids::{Offset, TopicId}, log};\n"}, "engine::log"),
    ("coord, in a path", {"coord/src/raft.rs": "fn f() { engine::cache::open() }\n"}, "engine::cache"),
    ("coord, braces within", {"coord/src/raft.rs": "use engine::{ids::{Offset, TopicId}, batch};\n"}, None),
    ("sim feature", {"engine/src/lib.rs": '#[cfg(feature = "sim")]\nmod fake;\n'}, "above rt"),
    ("sim feature in rt", {"rt/src/lib.rs": '#[cfg(feature = "sim")]\nmod fake;\n'}, None),
]


class CheckImports(unittest.TestCase):
    def test_cases(self):
        for name, files, expected in CASES:
            with self.subTest(name):
                problems = workspace(files)
                if expected is None:
                    self.assertEqual(problems, [])
                else:
                    self.assertEqual(len(problems), 1, problems)
                    self.assertIn(expected, problems[0])


if __name__ == "__main__":
    unittest.main()
