module github.com/hodei-jobs/hodei/tools/lint

go 1.26.0
