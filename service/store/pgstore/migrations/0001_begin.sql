-- Who may write: the term of the server that leads.
CREATE TABLE leadership (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    term bigint NOT NULL
);
INSERT INTO leadership (term) VALUES (0);

-- Pages of jobs as they were accepted, and how the jobs ended. Rows are written once and deleted when they are old enough,
-- so that there is nothing to vacuum on the way of a job.
CREATE TABLE pages (
    last uuid PRIMARY KEY,
    accepted bytea -- NULL only on the way to being deleted
);
CREATE TABLE endings (
    page uuid NOT NULL,
    number bigint NOT NULL,
    ended bytea NOT NULL,
    PRIMARY KEY (page, number)
);

-- The values come compressed.
ALTER TABLE pages ALTER accepted SET STORAGE EXTERNAL, SET (toast_tuple_target = 8160);
ALTER TABLE endings ALTER ended SET STORAGE EXTERNAL, SET (toast_tuple_target = 8160);

-- What happens to jobs in between, one row for each commit.
CREATE TABLE blocks (
    number bigint PRIMARY KEY,
    block bytea NOT NULL
);
ALTER TABLE blocks ALTER block SET STORAGE EXTERNAL;

-- Which jobs of a page are on a list. The number of the commit tells apart what is added at different times.
CREATE TABLE listings (
    list bytea NOT NULL,
    page uuid NOT NULL,
    number bigint NOT NULL,
    jobs bytea NOT NULL,
    PRIMARY KEY (list, page, number)
);

CREATE TABLE requests (
    id bytea PRIMARY KEY,
    record bytea NOT NULL,
    expires timestamptz NOT NULL
);
CREATE INDEX requests_expires ON requests (expires);

CREATE TABLE records (
    kind bytea NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (kind, key)
);

-- What jobs write, in blocks: bytes and lines count what is in one, start and line what is before it in the attempt.
CREATE TABLE log_blocks (
    job uuid NOT NULL,
    attempt integer NOT NULL,
    start bigint NOT NULL,
    bytes bigint NOT NULL,
    line bigint NOT NULL,
    lines bigint NOT NULL,
    time bigint, -- nanoseconds since 1970
    data bytea NOT NULL,
    PRIMARY KEY (job, attempt, start)
);
ALTER TABLE log_blocks ALTER data SET STORAGE EXTERNAL; -- it comes compressed
CREATE TABLE log_ends (
    job uuid NOT NULL,
    attempt integer NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (job, attempt)
);

-- Values that could not be read, set aside.
CREATE TABLE quarantine (
    origin text NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL
);
