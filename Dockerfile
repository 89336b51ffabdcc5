# The main environment as a container: docker build -t tissue-counterfactuals . && docker run --rm -v $PWD/results:/tissue-counterfactuals/results
# tissue-counterfactuals demo. For Apptainer: apptainer build tc.sif docker-daemon://tissue-counterfactuals:latest
FROM python:3.11-slim-bookworm
# git: versions of the code stand in the provenance; make and gcc: some packages come as source.
RUN apt-get update && apt-get install -y --no-install-recommends gcc git libc6-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /tissue-counterfactuals
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
ENTRYPOINT ["snakemake", "--cores", "2"]
CMD ["demo"]
