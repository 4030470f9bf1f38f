//! The system calls that this crate needs, one safe function each. All `unsafe` code of the crate is in this file.

use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use libbpf_rs::{AsRawLibbpf, OpenMapMut, libbpf_sys as bpf};

/// The result of a libbpf function: a negative error number, or what it stands for.
fn check(returned: i32) -> io::Result<i32> {
    if returned < 0 {
        Err(io::Error::from_raw_os_error(-returned))
    } else {
        Ok(returned)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// Size of a structure of options, by which libbpf knows its version.
fn size<T>() -> u64 {
    size_of::<T>() as u64
}

/// Opens a pinned object.
pub fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that lives until the call has returned.
    let fd = check(unsafe { bpf::bpf_obj_get(path.as_ptr()) })?;
    // SAFETY: the call has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object.
pub fn object_pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: the path is a C string that lives until the call has returned.
    check(unsafe { bpf::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// What the kernel says of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapInfo {
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// Describes a map.
pub fn map_info(map: BorrowedFd<'_>) -> io::Result<MapInfo> {
    let mut info = bpf::bpf_map_info::default();
    let mut length = size_of::<bpf::bpf_map_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`.
    check(unsafe { bpf::bpf_map_get_info_by_fd(map.as_raw_fd(), &mut info, &mut length) })?;
    Ok(MapInfo {
        kind: info.type_,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.map_flags,
    })
}

/// What an object file says of a map that is not made yet.
pub fn map_definition(map: &OpenMapMut<'_>) -> MapInfo {
    let map = map.as_libbpf_object().as_ptr();
    // SAFETY: the pointer is one of an open object, which the functions only read.
    unsafe {
        MapInfo {
            kind: bpf::bpf_map__type(map),
            key_size: bpf::bpf_map__key_size(map),
            value_size: bpf::bpf_map__value_size(map),
            max_entries: bpf::bpf_map__max_entries(map),
            flags: bpf::bpf_map__map_flags(map),
        }
    }
}

/// Sets an element. The caller has made sure that key and value have the map's sizes.
pub fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let any = u64::from(bpf::BPF_ANY);
    // SAFETY: the kernel reads key_size and value_size bytes, which is what the slices have.
    check(unsafe {
        bpf::bpf_map_update_elem(
            map.as_raw_fd(),
            key.as_ptr().cast(),
            value.as_ptr().cast(),
            any,
        )
    })
    .map(drop)
}

/// Removes an element. The caller has made sure that the key has the map's size.
pub fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads key_size bytes, which is what the slice has.
    check(unsafe { bpf::bpf_map_delete_elem(map.as_raw_fd(), key.as_ptr().cast()) }).map(drop)
}

/// Reads an element. The caller has made sure that key and value have the map's sizes, for a per-CPU map the value's
/// rounded up to 8 and times the number of possible CPUs.
pub fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    // SAFETY: the kernel reads key_size bytes and writes as many as the value has, see above.
    check(unsafe {
        bpf::bpf_map_lookup_elem(
            map.as_raw_fd(),
            key.as_ptr().cast(),
            value.as_mut_ptr().cast(),
        )
    })
    .map(drop)
}

/// Reads up to `count` elements of a hash map from `cursor` on, which is `None` at first and then moves along. Returns
/// how many were written to `keys` and `values`, and whether these were the last.
pub fn map_lookup_batch(
    map: BorrowedFd<'_>,
    cursor: &mut Option<u32>,
    count: usize,
    keys: &mut [u8],
    values: &mut [u8],
) -> io::Result<(usize, bool)> {
    let mut read = count as u32;
    let mut next = 0u32;
    let from = cursor.as_mut().map_or(std::ptr::null_mut(), |cursor| {
        std::ptr::from_mut(cursor).cast()
    });
    // SAFETY: the caller's buffers have room for `count` keys and values. The cursor of a hash map has 4 bytes.
    let returned = unsafe {
        bpf::bpf_map_lookup_batch(
            map.as_raw_fd(),
            from,
            std::ptr::from_mut(&mut next).cast(),
            keys.as_mut_ptr().cast(),
            values.as_mut_ptr().cast(),
            &mut read,
            std::ptr::null(),
        )
    };
    *cursor = Some(next);
    match check(returned) {
        Ok(_) => Ok((read as usize, false)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok((read as usize, true)),
        Err(error) => Err(error),
    }
}

/// Number of CPUs for which per-CPU maps have a value.
pub fn possible_cpus() -> io::Result<usize> {
    // SAFETY: the function has no arguments.
    Ok(check(unsafe { bpf::libbpf_num_possible_cpus() })? as usize)
}

/// Attaches an XDP program to an interface with these `XDP_FLAGS_*`.
pub fn link_create(program: BorrowedFd<'_>, ifindex: u32, flags: u32) -> io::Result<OwnedFd> {
    let options = bpf::bpf_link_create_opts {
        sz: size::<bpf::bpf_link_create_opts>(),
        flags,
        ..Default::default()
    };
    // SAFETY: the options live until the call has returned and say their own size.
    let fd = check(unsafe {
        bpf::bpf_link_create(program.as_raw_fd(), ifindex as i32, bpf::BPF_XDP, &options)
    })?;
    // SAFETY: the call has just opened this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts another program in the place of a link's one, atomically.
pub fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both descriptors are open; no options are given.
    check(unsafe { bpf::bpf_link_update(link.as_raw_fd(), program.as_raw_fd(), std::ptr::null()) })
        .map(drop)
}

/// Takes a link's program off its interface, whoever else holds the link.
pub fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    check(unsafe { bpf::bpf_link_detach(link.as_raw_fd()) }).map(drop)
}

/// What the kernel says of an XDP link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkInfo {
    /// Interface index, 0 if the interface is gone or the link was detached.
    pub ifindex: u32,
    /// Id of the program.
    pub program: u32,
}

/// Describes a link; `None` if it is not one of XDP.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<Option<LinkInfo>> {
    let mut info = bpf::bpf_link_info::default();
    let mut length = size_of::<bpf::bpf_link_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`.
    check(unsafe { bpf::bpf_link_get_info_by_fd(link.as_raw_fd(), &mut info, &mut length) })?;
    if info.type_ != bpf::BPF_LINK_TYPE_XDP {
        return Ok(None);
    }
    // SAFETY: the type says that the kernel filled this member; any bytes are a valid u32.
    let ifindex = unsafe { info.__bindgen_anon_1.xdp.ifindex };
    Ok(Some(LinkInfo {
        ifindex,
        program: info.prog_id,
    }))
}

/// Name of the program with this id, if we may see it (that needs CAP_SYS_ADMIN).
pub fn program_name(id: u32) -> Option<String> {
    // SAFETY: the function takes a number.
    let fd = check(unsafe { bpf::bpf_prog_get_fd_by_id(id) }).ok()?;
    // SAFETY: the call has just opened this descriptor for us alone.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = bpf::bpf_prog_info::default();
    let mut length = size_of::<bpf::bpf_prog_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `info`, and no arrays were asked for.
    check(unsafe { bpf::bpf_prog_get_info_by_fd(program.as_raw_fd(), &mut info, &mut length) })
        .ok()?;
    let name: Vec<u8> = info
        .name
        .iter()
        .map(|&c| c as u8)
        .take_while(|&c| c != 0)
        .collect();
    Some(String::from_utf8_lossy(&name).into_owned())
}

/// The XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XdpInfo {
    /// Id of the program.
    pub program: u32,
    /// Whether it runs in generic mode.
    pub generic: bool,
}

/// Asks which XDP program is on an interface; `None` if none is.
pub fn xdp_query(ifindex: u32) -> io::Result<Option<XdpInfo>> {
    let mut options = bpf::bpf_xdp_query_opts {
        sz: size::<bpf::bpf_xdp_query_opts>(),
        ..Default::default()
    };
    // SAFETY: the options live until the call has returned and say their own size.
    check(unsafe { bpf::bpf_xdp_query(ifindex as i32, 0, &mut options) })?;
    let id = |id: u32, generic: bool| {
        (id != 0).then_some(XdpInfo {
            program: id,
            generic,
        })
    };
    Ok(id(options.drv_prog_id, false)
        .or_else(|| id(options.hw_prog_id, false))
        .or_else(|| id(options.skb_prog_id, true)))
}

/// Runs an XDP program on a copy of `frame` and returns its verdict, an `XDP_*` number.
pub fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<u32> {
    // Older kernels take less than an Ethernet header, which no driver would hand to a program.
    if frame.len() < 14 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let length =
        u32::try_from(frame.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let mut options = bpf::bpf_test_run_opts {
        sz: size::<bpf::bpf_test_run_opts>(),
        data_in: frame.as_ptr().cast(),
        data_size_in: length,
        repeat: 1,
        ..Default::default()
    };
    // SAFETY: the kernel reads data_size_in bytes at data_in, which is the slice, and writes only to `options`.
    check(unsafe { bpf::bpf_prog_test_run_opts(program.as_raw_fd(), &mut options) })?;
    Ok(options.retval)
}

/// Index of the interface with this name in the network namespace of the calling thread.
pub fn interface_index(name: &str) -> io::Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: the name is a C string that lives until the call has returned.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

/// Name of the interface with this index in the network namespace of the calling thread.
pub fn interface_name(index: u32) -> io::Result<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the size that the function asks for.
    if unsafe { libc::if_indextoname(index, name.as_mut_ptr().cast()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    let name = CStr::from_bytes_until_nul(&name).map_err(io::Error::other)?;
    Ok(name.to_string_lossy().into_owned())
}

/// The user that we act as.
pub fn effective_user() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether a BPF file system holds this path.
pub fn is_bpf_file_system(path: &Path) -> io::Result<bool> {
    let path = c_path(path)?;
    let mut found = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path is a C string, and the kernel fills the structure it is given.
    if unsafe { libc::statfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the structure is filled.
    let found = unsafe { found.assume_init() };
    // https://git.kernel.org/pub/scm/linux/kernel/git/torvalds/linux.git/tree/include/uapi/linux/magic.h
    const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
    Ok(found.f_type as u32 == BPF_FS_MAGIC)
}

/// Mounts a BPF file system there, open to root alone.
pub fn mount_bpf_file_system(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: all strings are C strings that live until the call has returned.
    let returned = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if returned != 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The bytes by which a socket enters a map of sockets.
pub fn socket_value(socket: RawFd) -> [u8; 4] {
    socket.to_ne_bytes()
}
