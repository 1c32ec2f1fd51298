from .expert_servers import (
    NO_CPU_BINDING as NO_CPU_BINDING,
    ExpertServers as ExpertServers,
    serve_expert as serve_expert,
)
from .policy_server import PolicyServers as PolicyServers, serve_policy as serve_policy
from .process import (
    HOST as HOST,
    ServerError as ServerError,
    ending_with_parent as ending_with_parent,
    free_port as free_port,
    run_server as run_server,
)
from .weight_transfer import (
    Backend as Backend,
    Control as Control,
    Controls as Controls,
    FileTransfer as FileTransfer,
    NCCLTransfer as NCCLTransfer,
    WeightTransfer as WeightTransfer,
    weights_file as weights_file,
)
