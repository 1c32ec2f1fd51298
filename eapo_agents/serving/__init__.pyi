from .experts import (
    UNBOUND as UNBOUND,
    ExpertServers as ExpertServers,
    serve_expert as serve_expert,
)
from .policy import PolicyServerProcess as PolicyServerProcess, serve_policy as serve_policy
from .process import HOST as HOST, free_port as free_port, running as running
from .weight_transfer import (
    Backend as Backend,
    Control as Control,
    FileTransfer as FileTransfer,
    NCCLTransfer as NCCLTransfer,
    WeightTransfer as WeightTransfer,
    weights_file as weights_file,
)
