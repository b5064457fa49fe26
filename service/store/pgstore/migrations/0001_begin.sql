-- Who may write: the term of the server that leads.
CREATE TABLE leadership (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    term bigint NOT NULL
);
INSERT INTO leadership (term) VALUES (0);

-- Jobs as they were accepted, and how they ended. Rows are written once and deleted when they are old enough, so that there
-- is nothing to vacuum on the way of a job.
CREATE TABLE jobs (
    id uuid PRIMARY KEY,
    accepted bytea NOT NULL
);
CREATE TABLE endings (
    id uuid PRIMARY KEY,
    state bytea NOT NULL
);

-- What happens to jobs in between, one row for each commit.
CREATE TABLE unfinished (
    number bigint PRIMARY KEY,
    block bytea NOT NULL
);

-- Lists of jobs for listing, one row for each commit and list.
CREATE TABLE postings (
    list bytea NOT NULL,
    last uuid NOT NULL,
    ids bytea NOT NULL,
    PRIMARY KEY (list, last)
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

CREATE TABLE log_chunks (
    job uuid NOT NULL,
    attempt integer NOT NULL,
    start bigint NOT NULL,
    record bytea NOT NULL,
    PRIMARY KEY (job, attempt, start)
);
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
