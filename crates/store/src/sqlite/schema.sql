-- A guard is a hash of its row (guard.rs): what no chain covers shows its damage too.
create table streams (
    key integer primary key,
    space text not null,
    name text not null,
    meta blob not null,
    created integer not null,
    sequence integer not null,
    time integer not null,
    chain blob not null,
    sealed integer not null,
    guard blob not null,
    unique (space, name)
) strict;
create index streams_created on streams (space, created);

-- Rows stand in the order in which they came, so that an append is a write at the end.
create table records (
    position integer primary key,
    stream integer not null,
    sequence integer not null,
    time integer not null,
    id blob not null,
    kind text not null,
    meta blob not null,
    body blob not null,
    digest blob not null,
    chain blob not null
) strict;
create unique index records_place on records (stream, sequence);

-- Where each record stands: kept when it goes to an archive.
create table ids (
    id blob primary key,
    stream integer not null,
    sequence integer not null
) strict, without rowid;

create table repeats (
    stream integer not null,
    name text not null,
    request blob not null,
    first integer not null,
    last integer not null,
    guard blob not null,
    primary key (stream, name)
) strict, without rowid;

create table snapshots (
    stream integer primary key,
    sequence integer not null,
    body blob not null,
    guard blob not null
) strict;

create table archives (
    file text primary key,
    time integer not null,
    records integer not null,
    bytes integer not null,
    digest blob not null,
    guard blob not null
) strict;

create table sealed (
    stream integer not null,
    first integer not null,
    last integer not null,
    chain blob not null,
    file text not null,
    -- Of the records' ids, in their order.
    ids blob not null,
    -- Whether the rows are gone.
    swept integer not null,
    guard blob not null,
    primary key (stream, first)
) strict, without rowid;
