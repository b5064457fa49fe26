"""Calls the server with gRPC's own library and google.protobuf, as a program in any language that gRPC has a library for.

Usage: grpcio.py STUBS ADDRESS CA CERT KEY. STUBS is a folder with what protoc has made of the protos.
"""

import sys
from pathlib import Path

import grpc

stubs, address, ca, cert, key = sys.argv[1:]
sys.path.insert(0, stubs)

from hodei.v1 import (  # noqa: E402
    job_pb2,
    job_service_pb2,
    job_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
)

credentials = grpc.ssl_channel_credentials(*(Path(path).read_bytes() for path in (ca, key, cert)))
with grpc.secure_channel(address, credentials) as channel:
    jobs = job_service_pb2_grpc.JobServiceStub(channel)
    spec = job_pb2.JobSpec(steps=[job_pb2.Step(command=job_pb2.Command(argv=["echo", "from gRPC"]))])
    job = jobs.SubmitJob(job_service_pb2.SubmitJobRequest(spec=spec)).job

    for batch in jobs.WatchJobs(job_service_pb2.WatchJobsRequest(filter=job_service_pb2.JobFilter(ids=[job.id]))):
        if any(j.state == job_pb2.JOB_STATE_SUCCEEDED for j in batch.jobs):
            break

    logs = log_service_pb2_grpc.LogServiceStub(channel)
    for answer in logs.TailLogs(log_service_pb2.TailLogsRequest(job_id=job.id, follow=True)):
        for chunk in answer.chunks:
            sys.stdout.buffer.write(chunk.data)

    try:
        jobs.GetJob(job_service_pb2.GetJobRequest(id="job_00000000000000000000000000"))
    except grpc.RpcError as error:
        print(error.code().name, error.details())
