//! A simulated disk in memory, with the worst faults that a disk may have.
//!
//! After a [crash](SimulatedDisk::crash) each sector of each unsynced write may or may not be
//! there, so that writes are dropped, torn and reordered; so may each creation, renaming and
//! removal. Between crashes the disk behaves as a file system does. It counts its operations, can
//! lose power at any of them, can be full, and can fail to sync. Random choices come from a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use crate::{
    lock::lock,
    segment::disk::{Disk, DiskFile, FileIdentity},
};

/// What a disk writes at once, whole or not at all.
const SECTOR_BYTES: usize = 512;

/// The disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk(Arc<Mutex<Platter>>);

#[derive(Debug)]
struct Platter {
    /// The files as the system sees them.
    names: BTreeMap<String, u64>,
    /// The files as they are on disk for sure.
    synced_names: BTreeMap<String, u64>,
    files: BTreeMap<u64, Content>,
    next_file: u64,
    random: Random,
    boot: u64,
    /// Operations until the power fails.
    power: Option<u64>,
    /// Bytes that fit.
    room: Option<usize>,
    syncs_fail: bool,
    reads_fail: bool,
    /// What its path leads to, if not to it.
    elsewhere: Option<u64>,
}

/// What is in a file.
#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that were written since.
    dirty: BTreeSet<usize>,
}

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            files: BTreeMap::new(),
            next_file: 0,
            random: Random::new(seed),
            boot: 0,
            power: None,
            room: None,
            syncs_fail: false,
            reads_fail: false,
            elsewhere: None,
        })))
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        lock(&self.0)
    }

    /// Nothing is read or written as long as the result is held.
    pub(crate) fn block(&self) -> impl Sized + '_ {
        self.platter()
    }

    /// After so many more operations the power fails: nothing works any more until the
    /// [`crash`](Self::crash).
    pub(crate) fn fail_power_after(&self, operations: u64) {
        self.platter().power = Some(operations);
    }

    /// The machine starts again after it lost its power: of what was not synced there is some or
    /// none.
    pub(crate) fn crash(&self) {
        let platter = &mut *self.platter();
        platter.power = None;
        platter.boot += 1;
        let Platter { names, synced_names, random, .. } = platter;
        let all: BTreeSet<_> = names.keys().chain(synced_names.keys()).cloned().collect();
        for name in all {
            if random.happens(500) {
                match names.get(&name) {
                    Some(file) => synced_names.insert(name, *file),
                    None => synced_names.remove(&name),
                };
            }
        }
        platter.names = platter.synced_names.clone();
        for content in platter.files.values_mut() {
            content.crash(&mut platter.random);
        }
    }

    /// The process ends, the machine goes on: nothing that was written is lost.
    pub(crate) fn kill(&self) {
        self.platter().power = None;
    }

    /// So many bytes fit from now on; `None` is no limit.
    pub(crate) fn set_room(&self, room: Option<usize>) {
        self.platter().room = room;
    }

    /// Whether syncing fails from now on. What a failed sync was about counts as synced for the
    /// system, and is not on disk.
    pub(crate) fn set_syncs_fail(&self, fail: bool) {
        self.platter().syncs_fail = fail;
    }

    /// Whether reading fails from now on.
    pub(crate) fn set_reads_fail(&self, fail: bool) {
        self.platter().reads_fail = fail;
    }

    /// What the path of the directory leads to from now on: to this one, or to another.
    pub(crate) fn set_elsewhere(&self, elsewhere: Option<u64>) {
        self.platter().elsewhere = elsewhere;
    }

    /// Somebody removes a file.
    pub(crate) fn unlink(&self, name: &str) {
        self.platter().names.remove(name);
    }

    /// The bytes of a file, to be looked at or changed.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let platter = &mut *self.platter();
        if let Some(content) = platter.names.get(name).and_then(|file| platter.files.get_mut(file)) {
            change(&mut content.bytes);
            content.synced.clone_from(&content.bytes);
        }
    }

    /// This disk is from now on what another one was.
    pub(crate) fn become_copy_of(&self, other: &Self) {
        let Platter { names, synced_names, files, .. } = &mut *other.platter();
        let mut platter = self.platter();
        platter.names.clone_from(names);
        platter.synced_names.clone_from(synced_names);
        platter.files = std::mem::take(files);
    }

    /// A copy of the disk as it is now.
    pub(crate) fn copy(&self) -> Self {
        let platter = self.platter();
        let copy = Self::new(0);
        {
            let mut to = copy.platter();
            to.names.clone_from(&platter.names);
            to.synced_names.clone_from(&platter.names);
            to.next_file = platter.next_file;
            to.boot = platter.boot;
            for (file, content) in &platter.files {
                let bytes = content.bytes.clone();
                to.files.insert(*file, Content { synced: bytes.clone(), bytes, dirty: BTreeSet::new() });
            }
        }
        copy
    }
}

impl Content {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.dirty.extend(sectors(self.bytes.len(), end));
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
        self.dirty.extend(sectors(offset, end));
    }

    fn set_len(&mut self, len: usize) {
        let (from, to) = (self.bytes.len().min(len), self.bytes.len().max(len));
        self.dirty.extend(sectors(from, to));
        self.bytes.resize(len, 0);
    }

    fn sync(&mut self) {
        self.synced.clone_from(&self.bytes);
        self.dirty.clear();
    }

    fn crash(&mut self, random: &mut Random) {
        // The length is one of the file system's own records: it is the new one, the old one, or
        // that of the last sector that made it.
        let mut left = self.synced.clone();
        let per_mille = [0, 300, 700, 1_000][(random.next() % 4) as usize];
        let survivors: Vec<_> = self.dirty.iter().copied().filter(|_| random.happens(per_mille)).collect();
        for sector in survivors {
            let (start, end) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
            let end_now = end.min(self.bytes.len());
            if start < end_now {
                if left.len() < end_now {
                    left.resize(end_now, 0);
                }
                left[start..end_now].copy_from_slice(&self.bytes[start..end_now]);
            }
        }
        if random.happens(300) {
            left.resize(self.bytes.len(), 0);
        }
        self.bytes.clone_from(&left);
        self.synced = left;
        self.dirty.clear();
    }
}

fn sectors(from: usize, to: usize) -> std::ops::Range<usize> {
    from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)
}

impl Platter {
    /// Counts an operation that changes something.
    fn operate(&mut self) -> io::Result<()> {
        match &mut self.power {
            Some(0) => Err(io::Error::other("the power failed")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn used(&self) -> usize {
        self.names.values().filter_map(|file| self.files.get(file)).map(|content| content.bytes.len()).sum()
    }

    fn content(&mut self, file: u64) -> &mut Content {
        self.files.entry(file).or_default()
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut platter = self.platter();
        platter.operate()?;
        // A file of another number: the one that has the old one open keeps it.
        let file = platter.next_file;
        platter.next_file += 1;
        platter.content(file);
        platter.names.insert(name.to_owned(), file);
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = *self.platter().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { disk: self.clone(), file }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.platter().names.keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        let file = platter.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        platter.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        platter.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut platter = self.platter();
        platter.operate()?;
        platter.synced_names = platter.names.clone();
        Ok(())
    }

    fn boot_id(&self) -> Option<String> {
        Some(self.platter().boot.to_string())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity { device: self.platter().elsewhere.unwrap_or_default(), inode: 0 })
    }

    fn identity_of(&self, name: &str) -> io::Result<FileIdentity> {
        let inode = *self.platter().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FileIdentity { device: 0, inode })
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    file: u64,
}

impl DiskFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.platter().content(self.file).bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut platter = self.disk.platter();
        if platter.reads_fail {
            return Err(io::Error::other("the disk cannot be read"));
        }
        let bytes = &platter.content(self.file).bytes;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        let offset = usize::try_from(offset).expect("a simulated file fits into memory");
        let len = platter.content(self.file).bytes.len();
        let mut count = bytes.len();
        if let Some(room) = platter.room {
            let left = room.saturating_sub(platter.used());
            count = count.min(len.saturating_sub(offset) + left);
        }
        if platter.operate().is_err() {
            // The power fails in the middle of it.
            let part =
                usize::try_from(platter.random.next() % (count as u64 + 1)).expect("it is at most `count`");
            platter.content(self.file).write(&bytes[..part], offset);
            return Err(io::Error::other("the power failed"));
        }
        platter.content(self.file).write(&bytes[..count], offset);
        if count < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.operate()?;
        let len = usize::try_from(len).expect("a simulated file fits into memory");
        platter.content(self.file).set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.disk.platter();
        platter.operate()?;
        let fails = platter.syncs_fail;
        let content = platter.content(self.file);
        if fails {
            content.dirty.clear();
            return Err(io::Error::other("the disk failed"));
        }
        content.sync();
        Ok(())
    }

    fn identity(&self) -> io::Result<FileIdentity> {
        Ok(FileIdentity { device: 0, inode: self.file })
    }
}

/// Random choices from a seed: Sebastiano Vigna's SplitMix64.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn happens(&mut self, per_mille: u32) -> bool {
        self.next() % 1_000 < u64::from(per_mille)
    }
}
