//! A lab to play with: shells in its namespaces with everything set, and web servers that can be stopped.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Lab, node};

/// Writes the scripts that a person needs in a lab and returns the path of the first one:
///
/// - `enter ROLE [command…]`: a shell, or a command, in a namespace of the lab; `lbadm` works there;
/// - `web start|stop`, within the shell of a server: its nginx;
/// - `ilb kill|start`, within the shell of a balancer: its fast path and its manager.
pub fn scripts(lab: &Lab) -> PathBuf {
    // Makes sure that lbadm lies beside them.
    lab.node.lbadm("show-rule");
    let directory = lab.directory();
    let work = directory.join("work");
    if !work.exists() {
        std::fs::create_dir(&work).expect("cannot write into the lab's directory");
    }
    // Signals of nginx itself: a stop that has returned is one. The new one outlives the shell that it was started from.
    let web = format!(
        "#!/bin/bash\n\
         # web start|stop: the web server of this namespace\n\
         own='{directory}'/\"$ILB_ROLE\"\n\
         case \"$ILB_ROLE $1\" in\n\
         s*' stop') exec nginx -e \"$own/error.log\" -c \"$own/nginx.conf\" -s stop ;;\n\
         s*' start') exec setsid -f nginx -e \"$own/error.log\" -c \"$own/nginx.conf\" \
         >>\"$own/again.log\" 2>&1 </dev/null ;;\n\
         *) echo 'usage, in the shell of a server: web start|stop' >&2; exit 2 ;;\n\
         esac\n",
        directory = directory.display(),
    );
    write(&directory.join("bin/web"), &web);
    // The programs, not the shells and editors that have the settings on their command line, too.
    let ilb = format!(
        "#!/bin/bash\n\
         # ilb kill|start: the programs of this balancer\n\
         own='{directory}'; if [ \"$ILB_ROLE\" = lb2 ]; then own+=/second; fi\n\
         case \"$ILB_ROLE $1\" in\n\
         lb*' kill') exec pkill -KILL -f -- \"^[^ ]*/ilb-(svcmgr|fastpath) --config $own/ilb.toml\" ;;\n\
         lb*' start')\n\
         for program in ilb-fastpath ilb-svcmgr; do\n\
         setsid -f '{programs}'/$program --config \"$own/ilb.toml\" >>\"$own/$program.log\" 2>&1 </dev/null\n\
         done ;;\n\
         *) echo 'usage, in the shell of a balancer: ilb kill|start' >&2; exit 2 ;;\n\
         esac\n",
        directory = directory.display(),
        programs = node::programs().display(),
    );
    write(&directory.join("bin/ilb"), &ilb);
    let buses: String = [("lb", Some(&lab.node)), ("lb2", lab.second.as_ref())]
        .into_iter()
        .filter_map(|(role, node)| Some((role, node?)))
        .map(|(role, node)| format!("{role}) bus='{}' ;;\n", node.bus()))
        .collect();
    let enter = format!(
        "#!/bin/bash\n\
         # enter ROLE [command…]: a shell (or a command) in a namespace of this lab\n\
         case \"${{1:-lb}}\" in\n\
         {buses}\
         *) bus=/nobody/has/a/bus/here ;;\n\
         esac\n\
         export DBUS_SYSTEM_BUS_ADDRESS=\"$bus\"\n\
         export PATH=\"{bin}:{programs}:$PATH\"\n\
         export ILB_ROLE=\"${{1:-lb}}\"\n\
         export PS1=\"$ILB_ROLE# \"\n\
         shift\n\
         cd '{work}' || exit 1\n\
         if [ $# -eq 0 ]; then set -- bash --norc; fi\n\
         exec ip netns exec {identity}-\"$ILB_ROLE\" \"$@\"\n",
        bin = directory.join("bin").display(),
        programs = node::programs().display(),
        work = work.display(),
        identity = lab.identity(),
    );
    let path = directory.join("enter");
    write(&path, &enter);
    path
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("cannot write into the lab's directory");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, mode).expect("cannot set permissions");
}
